// The browser, and what it is seen to do: its requests, its complaints, breaches of the policy.

import { chromium } from 'playwright-core';

const PATIENCE_MS = 15000;

export async function launch({ chromium: executablePath, camera }) {
  const args = [
    '--use-fake-ui-for-media-stream', // grants the camera without asking
    '--use-fake-device-for-media-stream',
    '--disable-background-networking',
    '--disable-component-update',
  ];
  if (camera) args.push(`--use-file-for-fake-video-capture=${camera}`);
  if (process.getuid() === 0) args.push('--no-sandbox'); // Chromium refuses to sandbox root
  return chromium.launch({ executablePath, args, chromiumSandbox: process.getuid() !== 0 });
}

// `screen` has Playwright's own names: viewport, colorScheme, locale, hasTouch ...
export async function watched(browser, screen) {
  const context = await browser.newContext({
    locale: 'en-GB',
    viewport: { width: 1280, height: 800 },
    permissions: ['clipboard-read', 'clipboard-write', 'camera'],
    ...screen,
  });
  context.setDefaultTimeout(PATIENCE_MS);
  const seen = { requests: [], answers: {}, problems: [], violations: [] };
  context.on('request', (request) => seen.requests.push(`${request.method()} ${request.url()}`));
  context.on('response', (response) => {
    const status = response.status();
    seen.answers[status] = (seen.answers[status] ?? 0) + 1;
  });
  context.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) seen.problems.push(message.text());
  });
  context.on('weberror', (error) => seen.problems.push(String(error.error())));
  await context.exposeBinding('policyViolated', (_source, what) => seen.violations.push(what));
  await context.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) =>
      window.policyViolated(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`),
    );
  });
  return { context, seen };
}
