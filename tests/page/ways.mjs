// The ways in: paste, folders, the camera.

import { readFile } from 'node:fs/promises';
import { Page } from './page.mjs';

export async function paste(context, url, { file }) {
  const page = await Page.open(context, url);
  const png = (await readFile(file)).toString('base64');
  await page.page.evaluate(async (base64) => {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const blob = new Blob([bytes], { type: 'image/png' });
    await navigator.clipboard.write([new ClipboardItem({ 'image/png': blob })]);
  }, png);
  await page.page.keyboard.press('Control+v');
  await page.ready(1);
  return { faces: await page.faces.count() };
}

// One folder dropped, then one chosen.
export async function folder(context, url, { folder, photos }) {
  const page = await Page.open(context, url);
  await page.drop(folder);
  await page.ready(photos);
  const dropped = await page.page.getByRole('listitem').allInnerTexts();
  await page.choose('Choose folder', folder);
  await page.ready(2 * photos);
  return { dropped };
}

export async function camera(context, url) {
  const page = await Page.open(context, url);
  await page.button('Camera').first().click();
  await page.button('Take picture').click();
  await page.sees('1 picture taken');
  const live = () => page.page.evaluate(() =>
    [...document.querySelectorAll('video')].some((video) => video.srcObject?.active),
  );
  const during = await live();
  await page.button('Close').click();
  await page.ready(1);
  await page.faces.first().waitFor();
  return { faces: await page.faces.count(), during, after: await live() };
}
