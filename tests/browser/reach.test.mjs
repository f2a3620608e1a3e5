// What an emergency broadcast would reach is shown before anybody needs it, and what it reaches while it runs.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { Gateway } from './gateway.mjs';
import { Browser } from './page.mjs';
import { waitFor } from './wait.mjs';

let dir;
let gateway;
let browser;
let panel;
let dispatcher;

before(async () => {
  // The demo, but its radio finishes receiving before it is keyed, also in an emergency.
  const demo = readFileSync(new URL('../../src/gateway/demo.toml', import.meta.url), 'utf8');
  dir = mkdtempSync(path.join(tmpdir(), 'crosspatch-reach-'));
  writeFileSync(path.join(dir, 'event.toml'), `${demo}\nsimplex_in_emergency = "radio-first"\n`);
  gateway = await Gateway.launch(['--config', path.join(dir, 'event.toml')]);
  browser = await Browser.launch();
  panel = await browser.blank(400);
  await panel.goto(`${gateway.url}/`);
  dispatcher = await browser.talkPage(gateway, { user: 'dora', name: 'Dora', role: 'dispatch', channels: ['ops'] });
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
  rmSync(dir, { recursive: true });
});

const shown = (page, text) => waitFor(`a page to show '${text}'`, async () => {
  const reach = page.locator('#reach');
  return (await reach.isVisible()) && (await reach.innerText()).includes(text);
});

test('the front panel says what an emergency would reach, and which radio is in the way', async () => {
  await shown(panel, '4 of 4 channels reachable');
  await gateway.move('radio.vhf.carrier', true);
  await shown(panel, '4 of 4 channels reachable, 1 radio blocked');
  await shown(panel, 'Security: VHF 1 is receiving');
  const readiness = await (await fetch(`${gateway.url}/api/readiness`)).json();
  const security = readiness.channels.find(({ channelId }) => channelId === 'security');
  assert.deepEqual(security.radios, [{ name: 'VHF 1', state: 'blocked' }]);
  assert.equal(security.reachable, true);
});

test('a broadcaster is told what is on air, and that a radio is keyed once it has finished receiving', async () => {
  assert.equal(await dispatcher.page.locator('#reach').isVisible(), false);
  await dispatcher.page.evaluate(() => window.crosspatch.emergencyPress());
  await dispatcher.until('its broadcast', (state) => state.emergencyPhase === 'active');
  await shown(dispatcher.page, 'On air on 4 of 4 channels');
  await shown(dispatcher.page, 'VHF 1 receiving');
  assert.equal(await gateway.isActive('radio.vhf.ptt'), false);
  await shown(panel, 'On air on 4 of 4 channels');

  await gateway.move('radio.vhf.carrier', false);
  await waitFor('the transmitter to be keyed', () => gateway.isActive('radio.vhf.ptt'));
  await shown(dispatcher.page, 'VHF 1 keyed');
  await shown(panel, 'VHF 1 keyed');
});

test('when the desk itself broadcasts, the front panel says what is on air', async () => {
  await dispatcher.page.evaluate(() => window.crosspatch.emergencyRelease());
  await shown(panel, '4 of 4 channels reachable');
  await gateway.move('desk.emergency', true);
  await shown(panel, 'On air on 4 of 4 channels');
  await shown(panel, 'VHF 1 keyed');
  await gateway.move('desk.emergency', false);
});

test('when it is over, both pages say so', async () => {
  await shown(panel, '4 of 4 channels reachable');
  await waitFor('the dispatcher\'s list to go', async () => !(await dispatcher.page.locator('#reach').isVisible()));
  dispatcher.assertNoTroubles();
});
