// What was said, looked back at: the timeline and the instant recall, with recordings of real bursts that Chromium plays.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Gateway } from './gateway.mjs';
import { Browser } from './page.mjs';
import { waitFor } from './wait.mjs';

const CHANNELS = ['ops', 'medical', 'security', 'logistics'];
const DEMO = fileURLToPath(new URL('../../src/gateway/demo.toml', import.meta.url));

let directory;
let gateway;
let browser;
let general;
let dispatcher;
let timeline;

before(async () => {
  directory = mkdtempSync(path.join(tmpdir(), 'crosspatch-recorded-'));
  const config = path.join(directory, 'event.toml');
  writeFileSync(config, `${readFileSync(DEMO, 'utf8')}\n[recorder]\nchannels = ["ops", "medical"]\n`);
  gateway = await Gateway.launch(['--config', config]);
  browser = await Browser.launch();
  general = await browser.talkPage(gateway, { user: 'gina', name: 'Gina', channels: CHANNELS }, 440);
  dispatcher = await browser.talkPage(gateway, { user: 'dora', name: 'Dora', role: 'dispatch', channels: CHANNELS }, 800);
  await talk();
  timeline = await browser.blank(440);
  const token = await gateway.token({ user: 'dora', name: 'Dora', role: 'dispatch', channels: CHANNELS });
  await timeline.goto(`${gateway.url}/timeline#token=${token}`);
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
  rmSync(directory, { recursive: true, force: true });
});

/** A burst that is heard, one that is cut off, one that is denied, and an emergency. */
async function talk() {
  await general.press('ops');
  await general.granted('ops');
  await dispatcher.hears('ops', await dispatcher.inbound('ops'), 60);
  await general.release();
  await general.idle('ops');

  await general.press('medical');
  await general.granted('medical');
  await dispatcher.hears('medical', await dispatcher.inbound('medical'), 40);
  await dispatcher.pressPriority('medical');
  await general.shows('.message', 'Dispatch Dora has priority', 'medical');
  await general.release();
  await general.hears('medical', await general.inbound('medical'), 60);
  await general.press('medical');
  await general.release();
  await dispatcher.release();
  await general.idle('medical');

  await gateway.move('desk.emergency', true);
  await gateway.audited("action = 'emergency_broadcast.start'");
  await general.hears('ops', await general.inbound('ops'), 40);
  await gateway.move('desk.emergency', false);
  await gateway.audited("action = 'recording.stored' AND channel IS NULL");
}

const bars = (filter) => timeline.locator(`.burst${filter}`).count();

test('the timeline has a lane a channel and a bar a burst, in the colour of the role', async () => {
  await waitFor('the bursts to be drawn', async () => (await bars('[data-recorded=true]')) >= 4);
  const lane = (channel) => timeline.locator(`[data-channel="${channel}"]`);
  assert.deepEqual(await timeline.locator('.lane h2').allInnerTexts(), ['Operations', 'Medical'], 'by name, in the order of the event');
  assert.equal(await lane('ops').locator('.burst[data-role=GENERAL]').count(), 1);
  assert.equal(await lane('medical').locator('.burst[data-role=GENERAL][data-cut=true]').count(), 1, 'a burst that was cut off');
  assert.equal(await lane('medical').locator('.burst[data-role=DISPATCH]').count(), 1);
  assert.equal(await lane('medical').locator('.denied-mark').count(), 1);
  for (const channel of ['ops', 'medical']) {
    assert.equal(await lane(channel).locator('.burst[data-role=EMERGENCY]').count(), 1, `the emergency on ${channel}`);
  }
});

test('a click on a bar says what happened and plays what was said', async () => {
  await timeline.locator('[data-channel="medical"] .burst[data-role=DISPATCH]').click();
  await waitFor('the player to play', () => timeline.evaluate(() => document.querySelector('#player').currentTime > 0.2));
  const facts = await timeline.locator('#facts').innerText();
  for (const term of ['Interrupted', 'gina', 'old gate shut', 'SHA-256']) assert.ok(facts.includes(term), facts);
  const { detail } = await gateway.audited("action = 'recording.stored' AND channel = 'medical' AND actor = 'dora'");
  const seconds = await timeline.evaluate(() => document.querySelector('#player').duration);
  assert.ok(Math.abs(seconds - detail.lengthMs / 1000) < 0.1, `${seconds} s of ${detail.lengthMs} ms`);
});

test('Chromium decodes the talker\'s own tone from the file', async () => {
  const { detail } = await gateway.audited("action = 'recording.stored' AND channel = 'ops' AND actor = 'gina'");
  const token = await gateway.token({ user: 'ada', name: 'Ada', role: 'admin', channels: CHANNELS });
  const tone = await timeline.evaluate(async ({ id, token }) => {
    const reply = await fetch(`/api/recordings/${id}`, { headers: { Authorization: `Bearer ${token}` } });
    const context = new OfflineAudioContext(1, 48_000, 48_000);
    const sound = await context.decodeAudioData(await reply.arrayBuffer());
    const samples = sound.getChannelData(0).subarray(24_000, 24_000 + 9600); // 0.2 s, of whole periods of 440 Hz
    let crossings = 0;
    for (let i = 1; i < samples.length; i++) crossings += samples[i - 1] < 0 && samples[i] >= 0 ? 1 : 0;
    return { hz: crossings * 5, seconds: sound.duration };
  }, { id: detail.id, token });
  assert.ok(Math.abs(tone.hz - 440) <= 10, JSON.stringify(tone));
  assert.ok(Math.abs(tone.seconds - detail.lengthMs / 1000) < 0.1, JSON.stringify(tone));
});

test('a dispatcher hears the last bursts again on the talk page, and a general user has no such list', async () => {
  const page = dispatcher.page;
  await waitFor('the recall', async () => (await page.locator('#recall li').count()) >= 4);
  assert.match(await page.locator('#recall li').first().innerText(), /Desk 1 \(Dispatch\) on all channels/);
  await page.locator('#recall li button').nth(1).click();
  await waitFor('the recall to play', () => page.evaluate(() => document.querySelector('#recall audio').currentTime > 0.1));
  assert.equal(await general.page.locator('#recall').isVisible(), false);
  general.assertNoTroubles();
  dispatcher.assertNoTroubles();
});

test('a general user\'s link opens no timeline', async () => {
  const page = await browser.blank(440);
  const token = await gateway.token({ user: 'gina', name: 'Gina', channels: CHANNELS });
  await page.goto(`${gateway.url}/timeline#token=${token}`);
  await waitFor('the refusal', async () => (await page.locator('#banner').innerText()).includes('Only an Admin or a Dispatcher'));
});
