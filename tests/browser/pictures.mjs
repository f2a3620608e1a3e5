// Takes the pictures of the documentation from a running demo event: `./dev pictures`.
import assert from 'node:assert/strict';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Gateway } from './gateway.mjs';
import { Browser } from './page.mjs';
import { waitFor } from './wait.mjs';

const DOCS = fileURLToPath(new URL('../../docs/', import.meta.url));
const CHANNELS = ['ops', 'medical', 'security', 'logistics'];

const gateway = await Gateway.start();
const browser = await Browser.launch();

async function take(page, name, width, height) {
  await page.setViewportSize({ width, height });
  // Two frames, so that what the last event changed is drawn.
  await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
  await page.screenshot({ path: path.join(DOCS, name), fullPage: true });
  console.log(`wrote docs/${name}`);
}

try {
  const panel = await browser.blank(400);
  await panel.goto(`${gateway.url}/`);
  const guest = await browser.talkPage(gateway, { user: 'guest-1', name: 'Guest 1', channels: CHANNELS });
  const dispatcher = await browser.talkPage(gateway, { user: 'dispatch-2', name: 'Dana', role: 'dispatch', channels: CHANNELS }, 800);

  await guest.press('security');
  await guest.granted('security');
  await dispatcher.pressPriority('security');
  await guest.shows('.message', 'Dispatch Dana has priority', 'security');
  await take(guest.page, 'talk-page.png', 420, 900);
  await guest.release();
  await dispatcher.release();
  await guest.idle('security');

  await gateway.move('desk.emergency', true);
  await waitFor('the transmitter to be keyed', () => gateway.isActive('radio.vhf.ptt'));
  await waitFor('the panel to show the emergency', () => panel.evaluate(() => document.querySelector('#reach').textContent.includes('On air on 4 of 4')));
  await take(panel, 'front-panel.png', 1100, 900);
  await gateway.move('desk.emergency', false);
  guest.assertNoTroubles();
  dispatcher.assertNoTroubles();
  assert.deepEqual(gateway.ready.degraded, []);
} finally {
  await browser.close();
  await gateway.stop();
}
