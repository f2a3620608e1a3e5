// Takes the pictures of the documentation from a running demo event: `./dev pictures`.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Gateway } from './gateway.mjs';
import { Browser } from './page.mjs';
import { waitFor } from './wait.mjs';

const DOCS = fileURLToPath(new URL('../../docs/', import.meta.url));
const CHANNELS = ['ops', 'medical', 'security', 'logistics'];

const DEMO = fileURLToPath(new URL('../../src/gateway/demo.toml', import.meta.url));

const directory = mkdtempSync(path.join(tmpdir(), 'crosspatch-pictures-'));
const config = path.join(directory, 'event.toml');
writeFileSync(config, `${readFileSync(DEMO, 'utf8')}\n[recorder]\nchannels = ["ops", "medical", "security"]\n`);
const gateway = await Gateway.launch(['--config', config]);
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
  await dispatcher.hears('security', await dispatcher.inbound('security'), 200);
  await dispatcher.pressPriority('security');
  await guest.shows('.message', 'Dispatch Dana has priority', 'security');
  await take(guest.page, 'talk-page.png', 420, 900);
  await guest.release();
  await guest.hears('security', await guest.inbound('security'), 150);
  await dispatcher.release();
  await guest.idle('security');

  await gateway.move('desk.emergency', true);
  await waitFor('the transmitter to be keyed', () => gateway.isActive('radio.vhf.ptt'));
  await waitFor('the panel to show the emergency', () => panel.evaluate(() => document.querySelector('#reach').textContent.includes('On air on 4 of 4')));
  await take(panel, 'front-panel.png', 1100, 900);
  await guest.hears('ops', await guest.inbound('ops'), 200);
  await gateway.move('desk.emergency', false);

  for (const channel of ['medical', 'ops', 'logistics']) {
    await guest.press(channel);
    await guest.granted(channel);
    await dispatcher.hears(channel, await dispatcher.inbound(channel), 200);
    await guest.release();
    await guest.idle(channel);
  }
  const timeline = await browser.blank(400);
  const token = await gateway.token({ user: 'dispatch-2', name: 'Dana', role: 'dispatch', channels: CHANNELS });
  await timeline.goto(`${gateway.url}/timeline#token=${token}`);
  await timeline.locator('#span').selectOption({ label: '1 min' });
  const cutIn = timeline.locator('[data-channel="security"] .burst[data-role=DISPATCH]');
  await waitFor('the bursts to be drawn', async () => (await cutIn.count()) === 1);
  await cutIn.click();
  await waitFor('the recording to play', () => timeline.evaluate(() => document.querySelector('#player').currentTime > 0));
  await take(timeline, 'timeline.png', 1100, 640);
  guest.assertNoTroubles();
  dispatcher.assertNoTroubles();
  assert.deepEqual(gateway.ready.degraded, []);
} finally {
  await browser.close();
  await gateway.stop();
  rmSync(directory, { recursive: true, force: true });
}
