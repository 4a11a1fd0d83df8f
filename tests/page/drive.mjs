// Plays scenarios in a browser: one JSON object a line on stdin, one report a line on stdout.
// Started with {"chromium": path, "camera": path or null}. A scenario may ask for something to be
// done outside of the browser: {"ask": what}; the next line on stdin says that it is done.

import { createInterface } from 'node:readline';
import { launch, watched } from './browser.mjs';
import { scenarios } from './scenarios.mjs';

const browser = await launch(JSON.parse(process.argv[2]));
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
for (let line = await lines.next(); !line.done; line = await lines.next()) {
  const { scenario, url, details } = JSON.parse(line.value);
  tell(await play(scenario, url, details));
}
await browser.close();

function tell(what) {
  process.stdout.write(JSON.stringify(what) + '\n');
}

async function ask(what) {
  tell({ ask: what });
  await lines.next();
}

async function play(scenario, url, details) {
  const { context, seen } = await watched(browser, details.screen ?? {});
  try {
    const found = await scenarios[scenario](context, url, details, ask);
    return { ...found, seen };
  } catch (error) {
    return { failed: String(error?.stack ?? error), seen };
  } finally {
    await context.close();
  }
}
