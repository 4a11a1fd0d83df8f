// Whether everybody can use the page: contrast, labels, phones, Chinese; and what it looks like.

import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { ANSWERED, Page } from './page.mjs';

const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const GRAVE = ['serious', 'critical'];

// The states that a person meets, one after the other; `visit(name, page)` sees each of them.
async function tour(context, url, { files, draw, size, phone }, visit) {
  const page = await Page.open(context, url);
  const chinese = (await page.page.getAttribute('html', 'lang')).startsWith('zh');
  const name = (english, other) => (chinese ? other : english);
  await visit('empty', page);
  await page.dropped(...files);
  await page.sees(/still to be seen|张脸可见/);
  await page.settled();
  await visit('found', page);
  await page.show('group');
  await page.settled();
  await visit('framed', page);
  if (phone) return page;
  await page.drag(size, draw.slice(0, 2), draw.slice(2));
  await page.settled();
  await visit('editing', page);
  await page.page.getByRole('radio', { name: name('Compare', '对比') }).check({ force: true });
  await page.slider(name('Before and after', '前后对比')).waitFor();
  await visit('compare', page);
  await page.button(name('Keys', '快捷键')).click();
  await visit('help', page);
  await page.button(name('Close', '关闭')).click();
  return page;
}

// Grave problems by state, as axe-core finds them.
export async function audit(context, url, details) {
  const problems = {};
  await tour(context, url, details, async (state, page) => (problems[state] = await grave(page)));
  return { problems };
}

async function grave({ page }) {
  await page.evaluate(`${await readFile(AXE, 'utf8')};0`);
  const { violations } = await page.evaluate(() => window.axe.run());
  return violations
    .filter(({ impact }) => GRAVE.includes(impact))
    .map(({ id, nodes }) => `${id}: ${nodes.slice(0, 4).map((node) => node.target).join('; ')}`);
}

// A page with a fault of each kind, to see that they are seen.
export async function faults(context, url) {
  const page = await Page.open(context, url);
  await page.page.evaluate(() => {
    const button = document.createElement('button'); // without a name
    button.setAttribute('style', 'color: red'); // against the policy
    document.body.append(button);
    const image = new Image();
    image.src = 'http://192.0.2.1/elsewhere.png'; // another machine (RFC 5737)
    console.error('complaint');
  });
  await page.drawn();
  return { problems: await grave(page) };
}

// How far each state can be scrolled sideways, and where what sticks out is.
export async function widths(context, url, details) {
  const wide = {};
  await tour(context, url, details, async (state, { page }) => {
    wide[state] = await page.evaluate(() => {
      const { scrollWidth, clientWidth } = document.documentElement;
      window.scrollTo(1000, 0);
      return { beyond: scrollWidth - clientWidth, scrolled: window.scrollX };
    });
    await page.evaluate(() => window.scrollTo(0, 0));
  });
  return { wide };
}

// A finger keeps a face, and draws another.
export async function touch(context, url, { file, size, keep, draw }) {
  const page = await Page.open(context, url);
  await page.choose('Choose photos', file);
  await page.ready(1);
  const middle = [(keep[0] + keep[2]) / 2, (keep[1] + keep[3]) / 2];
  await page.page.touchscreen.tap(...(await page.spot(size, middle)));
  const kept = await page.listed();
  await page.button('Draw a box').tap();
  const devtools = await context.newCDPSession(page.page);
  const [from, to] = [await page.spot(size, draw.slice(0, 2)), await page.spot(size, draw.slice(2))];
  const finger = ([x, y]) => [{ x, y }];
  const move = (type, touchPoints) => devtools.send('Input.dispatchTouchEvent', { type, touchPoints });
  await move('touchStart', finger(from));
  await move('touchMove', finger([(from[0] + to[0]) / 2, (from[1] + to[1]) / 2]));
  await move('touchMove', finger(to));
  await move('touchEnd', []);
  return { kept, drawn: await page.listed() };
}

// The words that are seen in each state, and the labels of what has no words.
export async function wording(context, url, details) {
  const said = {};
  await tour(context, url, details, async (state, { page }) => {
    const labels = await page.evaluate(() =>
      [...document.querySelectorAll('[aria-label], [title], [placeholder], [alt]')].flatMap((element) =>
        ['aria-label', 'title', 'placeholder', 'alt'].map((name) => element.getAttribute(name) ?? ''),
      ),
    );
    const language = await page.getAttribute('html', 'lang');
    said[state] = { text: await page.innerText('body'), labels: labels.filter(Boolean), language };
  });
  return { said };
}

// The switch between the languages.
export async function language(context, url) {
  const page = await Page.open(context, url);
  const look = async () => [
    await page.page.getByRole('heading', { level: 2 }).first().innerText(),
    await page.page.getAttribute('html', 'lang'),
  ];
  const steps = [await look()];
  await page.page.getByRole('button', { name: /中文/ }).click();
  await page.sees('选择照片');
  steps.push(await look());
  await page.page.getByRole('button', { name: /English/ }).click();
  await page.sees('Choose photos');
  steps.push(await look());
  return { steps };
}

// Screenshots of the states that are named.
export async function screenshots(context, url, details) {
  const taken = {};
  await tour(context, url, details, async (state, { page }) => {
    if (!(state in details.shots)) return;
    await page.waitForTimeout(300);
    await page.mouse.move(1, 1);
    await page.screenshot({ path: details.shots[state], type: 'jpeg', quality: 80 });
    taken[state] = details.shots[state];
  });
  return { taken };
}

// The line that says where photos are worked on, and by what.
export async function truth(context, url) {
  const { page } = await Page.open(context, url);
  return { said: await page.getByText(ANSWERED).filter({ visible: true }).first().innerText() };
}
