// What goes wrong: names that want to be code, files that are no photos, a server that goes away.

import { Page } from './page.mjs';

export async function names(context, url, { downloads, files }) {
  const page = await Page.open(context, url, downloads);
  const dialogs = [];
  page.page.on('dialog', (dialog) => {
    dialogs.push(dialog.message());
    void dialog.dismiss();
  });
  await page.dropped(...files);
  await page.settled();
  const listed = await page.page.getByRole('listitem').allInnerTexts();
  const planted = await page.page.evaluate(() =>
    document.querySelectorAll('[onerror], [onload], img[src="x"], script:not([src])').length,
  );
  const one = await page.download('Download photo');
  const all = await page.download('Download all (ZIP)');
  await page.sees(/photos? in unface\.zip/);
  return { listed, planted, dialogs, one, all };
}

// Files that are no photos stand beside one that is, each with its reason.
export async function refusals(context, url, { files, good }) {
  const page = await Page.open(context, url);
  await page.drop(...files, good);
  await page.page.getByRole('listitem').nth(files.length).waitFor();
  await page.photo(good.split('/').at(-1)).filter({ hasText: /hidden/ }).waitFor();
  await page.page.waitForTimeout(500);
  return { said: await page.page.getByRole('listitem').allInnerTexts() };
}

// The server goes away while there is work, and comes back.
export async function away(context, url, { downloads, files, size, draw }, ask) {
  const page = await Page.open(context, url, downloads);
  await page.dropped(files[0]);
  await page.settled();
  await ask('stop');
  await page.drag(size, draw.slice(0, 2), draw.slice(2));
  await page.sees(/The server does not answer/);
  await page.drop(files[1]);
  const lost = await page.listed();
  await ask('start');
  await page.text(/The server does not answer/).waitFor({ state: 'hidden' });
  await page.ready(2);
  await page.settled();
  const back = await page.listed();
  const file = await page.download('Download photo');
  return { lost, back, file };
}

// A page that asks for a token takes a right one, and no wrong one.
export async function token(context, url, { file, wrong, right }) {
  const page = await Page.open(context, url);
  await page.sees('This server asks for an access token.');
  const field = page.page.getByRole('textbox', { name: /Access token|token/ });
  await field.or(page.page.getByLabel('Access token')).first().fill(wrong);
  await page.button('Use token').click();
  await page.sees('The server does not take this token.');
  await page.page.getByLabel('Access token').first().fill(right);
  await page.button('Use token').click();
  await page.dropped(file);
  return { faces: await page.faces.count() };
}

// Who leaves with photos that are not saved is asked; who has saved them is not.
export async function leaving(context, url, { downloads, file }) {
  const page = await Page.open(context, url, downloads);
  const asked = [];
  page.page.on('dialog', (dialog) => {
    asked.push(dialog.type());
    void dialog.dismiss();
  });
  await page.dropped(file);
  await Promise.all([page.page.waitForEvent('dialog'), page.page.close({ runBeforeUnload: true })]);
  const unsaved = asked.splice(0);
  await page.download('Download photo');
  await page.sees(/in your downloads/);
  await Promise.all([page.page.waitForEvent('close'), page.page.close({ runBeforeUnload: true })]);
  return { unsaved, saved: asked };
}
