// The page as a person sees it: by roles, labels and places in the picture.

import { join } from 'node:path';

const SETTLE_MS = 30000; // the machine may be busy with other things
// What the page says once it knows the server.
export const ANSWERED = /nothing is stored|不保存任何内容|asks for an access token/;

export class Page {
  static async open(context, url, downloads) {
    const page = await context.newPage();
    await page.goto(url);
    await page.getByText(ANSWERED).filter({ visible: true }).first().waitFor();
    return new Page(page, downloads);
  }

  // The page draws once a frame.
  drawn() {
    return this.page.evaluate(() =>
      new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))),
    );
  }

  constructor(page, downloads) {
    this.page = page;
    this.downloads = downloads;
    this.frames = page.getByRole('group', { name: /^(Faces in this photo|照片中的人脸)$/ });
    this.faces = this.frames.getByRole('checkbox');
    this.found = this.frames.getByRole('button'); // what the check found
  }

  button(name) {
    return this.page.getByRole('button', { name, exact: true });
  }

  slider(name) {
    return this.page.getByRole('slider', { name, exact: true });
  }

  text(text) {
    return this.page.getByText(text, { exact: typeof text === 'string' });
  }

  async sees(text) {
    await this.text(text).filter({ visible: true }).first().waitFor({ timeout: SETTLE_MS });
  }

  // Files or folders from outside of the browser, as a file manager gives them.
  async drop(...files) {
    const devtools = await this.page.context().newCDPSession(this.page);
    const { width, height } = this.page.viewportSize();
    const data = { items: [], files, dragOperationsMask: 1 };
    for (const type of ['dragEnter', 'dragOver', 'drop']) {
      const where = { x: width / 2, y: height / 2 };
      await devtools.send('Input.dispatchDragEvent', { type, ...where, data });
    }
    await devtools.detach();
  }

  async choose(button, ...files) {
    const [chooser] = await Promise.all([
      this.page.waitForEvent('filechooser'),
      this.button(button).filter({ visible: true }).first().click(),
    ]);
    await chooser.setFiles(files);
  }

  // All photos are searched.
  async ready(photos) {
    const said = photos === 1 ? /^(1 photo|1 张照片)$/ : new RegExp(`^${photos} (photos|张照片)$`);
    const wait = { timeout: SETTLE_MS * Math.max(1, photos / 8) };
    await this.page.getByRole('heading', { name: said }).waitFor(wait);
  }

  async dropped(...files) {
    await this.drop(...files);
    await this.ready(files.length);
  }

  photo(name) {
    return this.page.getByRole('listitem').filter({ hasText: name });
  }

  async show(name) {
    await this.photo(name).getByRole('button').first().click();
  }

  // Which faces there are: label, whether it is hidden, and where, in pixels of the photo.
  async listed() {
    await this.drawn();
    return this.faces.evaluateAll((faces) => faces.map((face) => {
      const [x, y, width, height] = ['x', 'y', 'width', 'height'].map((side) =>
        Number(face.querySelector('rect').getAttribute(side)));
      return {
        label: face.getAttribute('aria-label'),
        hidden: face.getAttribute('aria-checked') === 'true',
        box: [x, y, x + width, y + height],
      };
    }));
  }

  // Where a place of the photo is on the screen.
  async spot(size, [x, y]) {
    await this.frames.scrollIntoViewIfNeeded();
    const at = await this.frames.boundingBox();
    return [at.x + (x / size.width) * at.width, at.y + (y / size.height) * at.height];
  }

  async clickFace(size, [x1, y1, x2, y2]) {
    await this.page.mouse.click(...(await this.spot(size, [(x1 + x2) / 2, (y1 + y2) / 2])));
  }

  async drag(size, from, to) {
    const [begin, end] = [await this.spot(size, from), await this.spot(size, to)];
    await this.page.mouse.move(...begin);
    await this.page.mouse.down();
    await this.page.mouse.move(...end, { steps: 4 });
    await this.page.mouse.up();
  }

  // What comes down when a button is pressed: `count` files.
  async download(button, count = 1) {
    const coming = [];
    const all = new Promise((resolve) => {
      const take = (download) => coming.push(download) === count && resolve();
      this.page.on('download', take);
    });
    await this.button(button).click();
    const late = new Promise((_, reject) =>
      setTimeout(() => reject(new Error(`${coming.length} of ${count} downloads`)), SETTLE_MS).unref(),
    );
    await Promise.race([all, late]);
    this.page.removeAllListeners('download');
    return Promise.all(coming.map((download, number) => this.save(download, number)));
  }

  async save(download, number) {
    const path = join(this.downloads, `download-${Date.now()}-${number}`);
    await download.saveAs(path);
    return { name: download.suggestedFilename(), path };
  }

  // The covered preview shows the decisions, and the check is done.
  async settled() {
    await this.drawn();
    await this.page.getByText(/^(Updating…|更新中…)$/).waitFor({ state: 'hidden', timeout: SETTLE_MS });
    await this.sees(/^(Checked: |The check found|已复查|复查发现)/);
  }
}
