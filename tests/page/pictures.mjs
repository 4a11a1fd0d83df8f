// What is seen of a photo before it is downloaded: the right picture, upright, as it will be.

import { writeFile } from 'node:fs/promises';
import { Page } from './page.mjs';

// For each file, the preview of its result and what comes down.
export async function previews(context, url, { downloads, files }) {
  const page = await Page.open(context, url, downloads);
  await page.dropped(...files);
  const shown = {};
  for (const name of files.map((file) => file.split('/').at(-1))) {
    await page.show(name);
    await page.settled();
    await page.page.waitForFunction(() => document.getElementById('after').naturalWidth);
    const png = await page.page.evaluate(() => {
      const image = document.getElementById('after');
      const canvas = document.createElement('canvas');
      [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
      canvas.getContext('2d').drawImage(image, 0, 0);
      return canvas.toDataURL('image/png').split(',')[1];
    });
    const preview = `${downloads}/${name}-preview.png`;
    await writeFile(preview, Buffer.from(png, 'base64'));
    const faces = await page.faces.count();
    const [{ path }] = await page.download('Download photo');
    shown[name] = { preview, path, faces };
  }
  return { shown };
}

// How often another photo's picture is seen while photos are leafed through; `photos` is an object
// of the upper left colour of each, by its name.
export async function leafing(context, url, { files, colours }) {
  const page = await Page.open(context, url);
  await page.dropped(...files);
  for (const name of Object.keys(colours)) {
    await page.show(name);
    await page.page.waitForFunction(() => document.getElementById('before').naturalWidth);
  }
  await page.page.evaluate((all) => {
    window.seen = { right: 0, wrong: [] };
    const pixel = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const look = () => {
      const name = document.querySelector('[aria-current] .name')?.textContent;
      for (const image of document.querySelectorAll('#picture img[src]')) {
        if (image.hidden || !image.naturalWidth) continue;
        pixel.drawImage(image, 0, 0, 20, 20, 0, 0, 1, 1);
        const [red, , blue] = pixel.getImageData(0, 0, 1, 1).data;
        const colour = red > 150 ? 'red' : blue > 150 ? 'blue' : 'dark';
        if (colour === all[name]) window.seen.right += 1;
        else window.seen.wrong.push(`${name} ${image.id} ${colour}`);
      }
      requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  }, colours);
  for (const key of ['PageUp', 'PageDown', 'PageUp', 'PageUp', 'PageDown', 'PageDown', 'PageUp', 'PageUp']) {
    await page.page.keyboard.press(key);
    await page.page.waitForTimeout(60);
  }
  return page.page.evaluate(() => window.seen);
}

// Boxes at the border: one drawn out of an enlarged part, one begun beside the picture.
export async function borders(context, url, { file, size }) {
  const page = await Page.open(context, url);
  await page.dropped(file);
  for (let i = 0; i < 4; i++) await page.button('Zoom in').click();
  await page.page.locator('#ground').evaluate((ground) => ground.scrollTo(0, 100));
  const ground = await page.page.locator('#ground').boundingBox();
  const drag = async (from, to) => {
    await page.page.mouse.move(...from);
    await page.page.mouse.down();
    await page.page.mouse.move(...to, { steps: 4 });
    await page.page.mouse.up();
  };
  await drag([ground.x + 80, ground.y + 150], [ground.x - 90, ground.y + 250]);
  await page.page.locator('#ground').evaluate((one) => one.scrollTo(600, 700));
  await page.page.keyboard.press('b');
  await page.drawn();
  const seen = await page.page.evaluate(() => {
    const [box, all] = [document.activeElement, document.getElementById('ground')].map((one) =>
      one.getBoundingClientRect());
    return box.left > all.left && box.right < all.right && box.top > all.top && box.bottom < all.bottom;
  });
  await page.page.keyboard.press('Delete');
  await page.button('Fit').click();
  const [x, y] = await page.spot(size, [0.3 * size.width, 0]);
  await drag([x, y - 20], [x + 50, y + 30]);
  return { seen, listed: await page.listed() };
}

// A file that goes away after it was added.
export async function gone(context, url, { downloads, file }, ask) {
  const page = await Page.open(context, url, downloads);
  await page.dropped(file);
  await page.settled();
  await ask('delete');
  await page.button('Download photo').click();
  await page.sees(/^The download failed: The file cannot be read/);
  await page.page.getByRole('radio', { name: 'Privacy' }).check({ force: true });
  await page.photo('gone').filter({ hasText: 'The file cannot be read' }).waitFor();
  const margin = await page.page.locator('#margin-value').innerText();
  return { margin, shown: await page.page.locator('#picture').isVisible(), again: await page.button('Try again').count() };
}
