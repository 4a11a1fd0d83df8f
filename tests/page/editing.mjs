// Photos come in, faces are kept, hidden and drawn, files go out.

import { Page } from './page.mjs';

// Three photos: in the first a face is kept, another place covered, more strongly; then all saved.
export async function decide(context, url, { downloads, files, size, keep, draw, strength }) {
  const page = await Page.open(context, url, downloads);
  await page.dropped(...files);
  await page.clickFace(size, keep);
  await page.drag(size, draw.slice(0, 2), draw.slice(2));
  await page.slider('Strength').fill(String(strength));
  await page.page.getByRole('checkbox', { name: /Audit record/ }).check();
  const listed = await page.listed();
  await page.settled();
  const one = await page.download('Download photo', 2);
  const [zip] = await page.download('Download all (ZIP)');
  await page.sees(/photos in unface\.zip/);
  return { listed, one, zip };
}

// Each step of the editor, and back again.
export async function undoing(context, url, { downloads, file, size, keep, draw }) {
  const page = await Page.open(context, url, downloads);
  await page.dropped(file);
  const steps = [await page.listed()];
  const note = async () => steps.push(await page.listed());
  await page.clickFace(size, keep);
  await note();
  await page.drag(size, draw.slice(0, 2), draw.slice(2));
  await note();
  const middle = [(draw[0] + draw[2]) / 2, (draw[1] + draw[3]) / 2];
  await page.drag(size, middle, [middle[0] + 40, middle[1] + 30]);
  await note();
  const corner = [draw[2] + 40, draw[3] + 30];
  await page.drag(size, corner, [corner[0] + 50, corner[1] + 20]);
  await note();
  await page.page.keyboard.press('Delete');
  await note();
  const back = [];
  while (await page.button('Undo').isEnabled()) {
    await page.button('Undo').click();
    back.push(await page.listed());
  }
  const forth = [];
  while (await page.button('Redo').isEnabled()) {
    await page.button('Redo').click();
    forth.push(await page.listed());
  }
  return { steps, back, forth };
}

// The slider's count at each threshold.
export async function thresholds(context, url, { file, values }) {
  const page = await Page.open(context, url);
  await page.dropped(file);
  const counts = [];
  for (const value of values) {
    await page.slider('Certainty needed').fill(String(value));
    await page.drawn();
    const said = page.text(/faces? here/);
    counts.push({ said: await said.innerText(), framed: await page.faces.count() });
  }
  return { counts };
}

// What the check finds is hidden in one click.
export async function selfCheck(context, url, { downloads, file, threshold }) {
  const page = await Page.open(context, url, downloads);
  await page.dropped(file);
  await page.slider('Certainty needed').fill(String(threshold));
  await page.sees(/still to be seen/);
  const residual = await page.found.count();
  const before = await page.faces.count();
  await page.button(residual === 1 ? 'Hide it' : `Hide all ${residual}`).click();
  await page.sees('Checked: no face found in the result.');
  const after = await page.faces.count();
  const [file_] = await page.download('Download photo');
  return { residual, before, after, file: file_ };
}

// What the check finds is hidden one by one: the others stay to be seen.
export async function oneByOne(context, url, { file, threshold }) {
  const page = await Page.open(context, url);
  await page.dropped(file);
  await page.slider('Certainty needed').fill(String(threshold));
  await page.sees(/still to be seen/);
  const counts = [[await page.faces.count(), await page.found.count()]];
  while (await page.found.count()) {
    await page.found.first().click();
    await page.drawn();
    counts.push([await page.faces.count(), await page.found.count()]);
  }
  await page.sees('Checked: no face found in the result.');
  return { counts };
}

// Settings are changed while a ZIP is made.
export async function changing(context, url, { downloads, files }) {
  const page = await Page.open(context, url, downloads);
  await page.dropped(...files);
  await page.page.getByRole('checkbox', { name: /Audit record/ }).check();
  const coming = page.page.waitForEvent('download');
  await page.button('Download all (ZIP)').click();
  await page.page.getByRole('radio', { name: 'Solid' }).check({ force: true });
  await page.sees(/photos in unface\.zip/);
  const rows = await page.page.getByRole('listitem').allInnerTexts();
  return { zip: await page.save(await coming, 0), saved: rows.filter((row) => /saved/.test(row)).length };
}

// Photos are taken away: the focus stays near, and decisions are not lost without a question.
export async function removing(context, url, { files, size, keep }) {
  const page = await Page.open(context, url);
  const asked = [];
  let answer = 'dismiss';
  page.page.on('dialog', (dialog) => asked.push(dialog.message()) && dialog[answer]());
  const focus = () => page.page.evaluate(() => document.activeElement.textContent);
  await page.dropped(...files);
  await page.clickFace(size, keep);
  await page.button('Remove pair.jpg').focus();
  await page.page.keyboard.press('Enter');
  await page.drawn();
  const near = await focus();
  await page.button('Remove all').click();
  const left = await page.page.getByRole('listitem').count();
  answer = 'accept';
  await page.button('Remove all').click();
  await page.drawn();
  return { near, left, asked, start: await focus() };
}

// The preview at places of the slider between before and after.
export async function compare(context, url, { downloads, file, places }) {
  const page = await Page.open(context, url, downloads);
  await page.dropped(file);
  await page.page.getByRole('checkbox', { name: 'Scores and points' }).uncheck();
  await page.settled();
  const picture = await page.frames.boundingBox();
  await page.page.getByRole('radio', { name: 'Compare' }).check({ force: true });
  const shots = [];
  for (const place of places) {
    await page.slider('Before and after').fill(String(place));
    await page.drawn();
    const path = `${downloads}/compare-${place}.png`;
    await page.page.screenshot({ path, clip: picture });
    shots.push(path);
  }
  return { shots };
}

// Without a mouse, from the first key to the download.
export async function keyboard(context, url, { downloads, files, size }) {
  const page = await Page.open(context, url, downloads);
  const { keyboard } = page.page;
  const focus = () => page.page.evaluate(() => {
    const { activeElement: at } = document;
    return at?.getAttribute('aria-label') ?? at?.textContent?.trim() ?? '';
  });
  const tabTo = async (label) => {
    for (let presses = 0; presses < 80; presses++) {
      if (label.test(await focus())) return;
      await keyboard.press('Tab');
    }
    throw new Error(`the Tab key never comes to ${label}`);
  };
  const opened = page.page.waitForEvent('filechooser');
  await tabTo(/^Choose photos$/);
  await keyboard.press('Enter');
  await (await opened).setFiles(files);
  await page.ready(files.length);
  await tabTo(/^Face 1 of/);
  const steps = {};
  const note = async (name) => (steps[name] = await page.listed());
  await note('found');
  await keyboard.press('Space');
  await note('kept');
  await keyboard.press('Enter');
  await note('hidden');
  await keyboard.press('ArrowRight');
  await keyboard.press('ArrowRight');
  await note('moved');
  await keyboard.press('Shift+ArrowDown');
  await note('grown');
  await keyboard.press('Delete');
  await note('deleted');
  await keyboard.press('Control+z');
  await note('undone');
  await keyboard.press('b');
  await note('added');
  const added = await focus();
  await keyboard.press('PageDown');
  await page.drawn();
  const next = await page.faces.count();
  await keyboard.press('PageUp');
  await tabTo(/^Download photo$/);
  const coming = page.page.waitForEvent('download');
  await keyboard.press('Enter');
  return { steps, added, next, file: await page.save(await coming, 0) };
}
