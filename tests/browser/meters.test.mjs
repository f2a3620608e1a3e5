// The meters of the front panel: what goes into a radio moves its bar, marks its peak and counts what clips.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Gateway } from './gateway.mjs';
import { Browser } from './page.mjs';
import { SoundServer, tone } from './sound.mjs';
import { waitFor } from './wait.mjs';

const PHONE = { width: 360, height: 740 };

let sounds;
let gateway;
let browser;
let panel;
const troubles = [];

before(async () => {
  sounds = await SoundServer.start('radio_rx', 'radio_tx');
  gateway = await Gateway.launch(['--demo', '--radio-capture', 'radio_rx', '--radio-playback', 'radio_tx'], sounds.env);
  browser = await Browser.launch();
  panel = await browser.blank(400);
  panel.on('pageerror', (error) => troubles.push(error.message));
  await panel.goto(`${gateway.url}/`);
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
  await sounds?.stop();
});

const level = (name) => panel.locator(`[data-level="${name}"]`);
const receive = () => level('radio.vhf.receive');
const peak = async (name) => Number(await level(name).getAttribute('data-peak'));
const port = () => panel.locator('[data-port="vhf"]');

test('a tone into the radio moves its meter and marks its peak, and nothing clips', async (t) => {
  await waitFor('the receiver to be silent', async () => /silent/.test(await receive().innerText()));
  const player = sounds.play('radio_rx', sounds.wav('tone.wav', tone(1000, 20, 0.1)));
  t.after(() => player.stop());
  const at = await waitFor('its peak', async () => {
    const now = await peak('radio.vhf.receive');
    if (Math.abs(now - -20) > 1) throw new Error(`${now} dBFS`);
    return now;
  });
  t.diagnostic(`a peak of ${at} dBFS`);
  assert.match(await receive().innerText(), /−2[34] dB/); // on average 3 dB less
  // The bar is covered from its level on: −23 dBFS is at 62 of 100.
  const covered = await receive().locator('.cover').evaluate((cover) => parseFloat(cover.style.left));
  assert.ok(Math.abs(covered - 61.7) < 2, `covered from ${covered} %`);
  const held = await receive().locator('.hold').evaluate((hold) => parseFloat(hold.style.left));
  assert.ok(Math.abs(held - 66.7) < 2, `the peak is marked at ${held} %`);
  assert.equal(await receive().locator('.clip').isVisible(), false);
  await player.stop();
  await waitFor('the mark to go when its time is over', async () => !(await receive().locator('.hold').isVisible()));
});

test('what clips is counted until somebody has seen it', async (t) => {
  const clip = receive().locator('.clip');
  const player = sounds.play('radio_rx', sounds.wav('square.wav', tone(500, 0.5).map((sample) => Math.sign(sample))));
  t.after(() => player.stop());
  await waitFor('a clip to show', () => clip.isVisible());
  assert.match(await clip.innerText(), /^Clip [1-9]\d*$/);
  await waitFor('its peak', async () => (await peak('radio.vhf.receive')) > -0.5);
  await player.ended;
  await waitFor('silence', async () => /silent/.test(await receive().innerText()));
  assert.equal(await clip.isVisible(), true, 'it stays');
  await clip.click();
  assert.equal(await clip.isVisible(), false, 'until it was pressed');
});

test('receiver and transmitter say in words what they do', async () => {
  const shows = (part, words) => waitFor(`${part} to say ${words}`, async () => (await port().locator(`.${part}`).innerText()) === words);
  await shows('receiver', 'Squelch closed');
  await shows('transmitter', 'Unkeyed');
  await gateway.move('radio.vhf.carrier', true);
  await shows('receiver', 'Carrier, talking');
  await gateway.move('desk.ptt.security', true);
  await shows('receiver', 'Pre-empted, radio still keyed');
  await shows('transmitter', 'Waits for the carrier to drop');
  await gateway.move('radio.vhf.carrier', false);
  await shows('receiver', 'Squelch closed');
  await shows('transmitter', 'Keyed');
  await waitFor('the transmit meter to move', async () => (await peak('radio.vhf.transmit')) > -20);
  await gateway.move('desk.ptt.security', false);
  await shows('transmitter', 'Unkeyed');
});

test('on a phone nothing is wider than the screen', async () => {
  const before = panel.viewportSize();
  await panel.setViewportSize(PHONE);
  const [wide, screen] = await panel.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= screen, `${wide} of ${screen} pixels`);
  for (const part of ['.states', '[data-level="radio.vhf.receive"] .bar']) {
    const box = await port().locator(part).boundingBox();
    assert.ok(box.x >= 0 && box.x + box.width <= PHONE.width, `${part} is cut off`);
  }
  await panel.setViewportSize(before);
});

test('no script of the page failed', () => assert.deepEqual(troubles, []));
