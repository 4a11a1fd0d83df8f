// What the page costs: bytes, time, memory.

import { Page } from './page.mjs';

const IDLE_MS = 1000;

// The first load, from an empty cache: bytes over the wire, and when it can be used, that is, when
// it knows the server and says so beside its buttons.
export async function load(context, url) {
  const tab = await context.newPage();
  const devtools = await context.newCDPSession(tab);
  await devtools.send('Network.enable');
  let [bytes, files] = [0, 0];
  devtools.on('Network.loadingFinished', ({ encodedDataLength }) => {
    bytes += encodedDataLength;
    files += 1;
  });
  await tab.addInitScript(() => {
    const look = () => {
      const says = document.body?.innerText ?? '';
      if (/Choose photos/.test(says) && /nothing is stored/.test(says)) {
        window.interactiveAt = performance.now();
      } else requestAnimationFrame(look);
    };
    look();
  });
  await tab.goto(url);
  await tab.waitForFunction(() => window.interactiveAt);
  const first = { bytes, files };
  await tab.keyboard.press('Tab'); // has the page load what is needed once there are photos
  await tab.waitForTimeout(IDLE_MS);
  const times = await tab.evaluate(() => ({
    interactive: window.interactiveAt,
    painted: performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0,
    loaded: Math.max(...performance.getEntriesByType('resource').map((one) => one.responseEnd)),
  }));
  return { first, bytes, files, ...times };
}

// Milliseconds from the drop of a photo until its preview is shown with frames.
export async function firstFrames(context, url, { file, rounds }) {
  const times = [];
  for (let round = 0; round < rounds; round++) {
    const page = await Page.open(context, url);
    await page.page.waitForLoadState('networkidle');
    await page.page.evaluate(() => {
      document.addEventListener('drop', () => (window.droppedAt = performance.now()), true);
      const look = () => {
        const framed = document.querySelector('[role=group] [role=checkbox]');
        const shown = [...document.images].some((image) => image.naturalWidth > 300 && image.complete);
        if (framed) window.framedAt ??= performance.now();
        if (shown) window.shownAt ??= performance.now();
        if (!framed || !shown) requestAnimationFrame(look);
      };
      requestAnimationFrame(look);
    });
    await page.drop(file);
    await page.page.waitForFunction(() => window.framedAt && window.shownAt);
    times.push(await page.page.evaluate(() => {
      const { droppedAt, framedAt, shownAt } = window;
      return { framed: framedAt - droppedAt, shown: shownAt - droppedAt };
    }));
    await page.page.close({ runBeforeUnload: false });
  }
  return { times };
}

// Many photos at once: all searched, all checked, then all in one ZIP.
export async function many(context, url, { downloads, files, minutes }, ask) {
  const page = await Page.open(context, url, downloads);
  page.page.setDefaultTimeout(minutes * 60000);
  await ask('opened');
  await page.drop(...files);
  const heading = { name: new RegExp(`^${files.length} photos$`) };
  await page.page.getByRole('heading', heading).waitFor();
  await ask('searched');
  const coming = page.page.waitForEvent('download');
  await page.button('Download all (ZIP)').click();
  const download = await coming;
  await page.text(/photos in unface\.zip/).waitFor();
  const zip = await page.save(download, 0);
  await ask('saved');
  const rows = await page.page.getByRole('listitem').allInnerTexts();
  return { zip, rows };
}
