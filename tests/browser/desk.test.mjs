// The desk with real sound: its microphone and its loudspeaker are ALSA devices, its buttons those of the simulated board.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Gateway } from './gateway.mjs';
import { Browser } from './page.mjs';
import { SoundServer, listen, now, tone } from './sound.mjs';
import { waitFor } from './wait.mjs';

const DESK_HZ = 1200;
const OPS_HZ = 400;
const MEDICAL_HZ = 800;
const DISPATCH_HZ = 600;
const ARMING_HZ = 880;
/** How much the desk's loudspeaker is turned down while its microphone is open. */
const DIM_DB = -20;
/** How much other channels are turned down under the one that the desk talked on last. */
const DUCK_DB = -12;
/** How much louder an emergency is than anything else. */
const EMERGENCY_DB = 6;

let sounds;
let gateway;
let browser;
let onOps;
let onMedical;
let dispatcher; // on ops
let ear; // on ops
let loudspeaker;

before(async () => {
  sounds = await SoundServer.start('desk_mic', 'desk_spk');
  const pcms = ['--desk-capture', 'desk_mic', '--desk-playback', 'desk_spk'];
  gateway = await Gateway.launch(['--demo', ...pcms], sounds.env);
  browser = await Browser.launch();
  onOps = await browser.talkPage(gateway, { user: 'olga', name: 'Olga', channels: ['ops'] }, OPS_HZ);
  onMedical = await browser.talkPage(gateway, { user: 'mark', name: 'Mark', channels: ['medical'] }, MEDICAL_HZ);
  dispatcher = await browser.talkPage(gateway, { user: 'dora', name: 'Dora', role: 'dispatch', channels: ['ops'] }, DISPATCH_HZ);
  ear = await listen(onOps.page);
  loudspeaker = await sounds.record('desk_spk');
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
  await sounds?.stop();
});

const lamp = (id, lit) => waitFor(`the lamp of ${id} to be ${lit ? 'lit' : 'dark'}`, async () => (await gateway.isActive(`desk.tally.${id}`)) === lit);
const decidedAt = ({ mono_ns }) => mono_ns / 1e6;
const decibel = (ratio) => 20 * Math.log10(ratio);

/** Waits until the loudspeaker has sounded a tone for some time after `from`, and returns its span. */
const sounding = (hz, from, ms = 500) => waitFor(`the loudspeaker to sound ${hz} Hz`, async () => {
  const span = loudspeaker.sound.between(from).toneSpan(hz);
  return span && span.until - span.from > ms && span;
});

/** Begins to talk into the desk's microphone. */
function talkAtDesk(t) {
  const player = sounds.play('desk_mic', sounds.wav('desk.wav', tone(DESK_HZ, 60)));
  t.after(() => player.stop());
  return player;
}

test('the sound devices of the desk are open', () => {
  assert.deepEqual(gateway.ready.degraded, []);
});

test('who talks at the desk is heard on the channel of the button, while it is pressed', async (t) => {
  const onAir = await sounds.record('desk_mic');
  const player = talkAtDesk(t);
  await waitFor('the tone to be in the microphone', async () => onAir.sound.toneSpan(DESK_HZ));
  const from = now();
  await gateway.move('desk.ptt.ops', true);
  await onOps.hearsTone(DESK_HZ);
  await onOps.shows('.speaker', /Desk 1.*Dispatch/);
  await lamp('ops', true);
  assert.equal(await gateway.isActive('desk.tally.medical'), false);
  assert.equal((await onMedical.channel('medical')).speaker, null);
  await gateway.move('desk.ptt.ops', false);
  await onOps.idle();
  await lamp('ops', false);

  const start = await gateway.audited("action = 'priority_ptt.start' AND actor = 'desk-1' AND channel = 'ops'");
  const stop = await gateway.audited(`action = 'ptt.stop' AND actor = 'desk-1' AND burst = '${start.burst}'`);
  const heard = (await ear.reaches(now() + 500)).between(from);
  await player.stop();
  const span = heard.toneSpan(DESK_HZ);
  const [begin, end] = [span.from - decidedAt(start), span.until - decidedAt(stop)];
  t.diagnostic(`heard from ${Math.round(begin)} ms after the grant until ${Math.round(end)} ms after the release`);
  assert.ok(begin > 0 && begin < 300, `heard ${begin} ms after the grant`);
  assert.ok(end > -50 && end < 300, `heard until ${end} ms after the release`);
  // The level is kept: nothing between microphone and browser turns it up or down.
  assert.ok(Math.abs(decibel(span.level / onAir.sound.toneSpan(DESK_HZ).level)) < 3, `the level came out as ${span.level}`);
  assert.equal(loudspeaker.sound.between(from).toneSpan(DESK_HZ), null, 'the desk heard itself');
  await gateway.assertNothingAfterShut();
});

test('who talks on a channel of the desk is heard from its loudspeaker, and the lamp of the channel is lit', async (t) => {
  const from = now();
  await onMedical.press('medical');
  await onMedical.granted('medical');
  await lamp('medical', true);
  assert.equal(await gateway.isActive('desk.tally.ops'), false);
  await sounding(MEDICAL_HZ, from);
  await onMedical.release();
  await onMedical.idle('medical');
  await lamp('medical', false);

  const start = await gateway.audited("action = 'ptt.start' AND actor = 'mark'");
  const stop = await gateway.audited("action = 'ptt.stop' AND actor = 'mark'");
  const span = (await loudspeaker.reaches(now() + 500)).between(from).toneSpan(MEDICAL_HZ);
  const [begin, end] = [span.from - decidedAt(start), span.until - decidedAt(stop)];
  t.diagnostic(`sounded from ${Math.round(begin)} ms after the grant until ${Math.round(end)} ms after the release`);
  assert.ok(begin > 0 && begin < 400, `sounded ${begin} ms after the grant`);
  assert.ok(end > -100 && end < 300, `sounded until ${end} ms after the release`);
});

/** How loud a tone is for the next half second, in dB of what it was. */
async function comparedTo(before, hz) {
  // What was loud before is still in the devices' buffers.
  const from = now() + 300;
  await loudspeaker.reaches(from + 500);
  const span = loudspeaker.sound.between(from, from + 500).toneSpan(hz, 0.001);
  assert.ok(span, `nothing is heard of ${hz} Hz`);
  return decibel(span.level / before.level);
}

test('the loudspeaker mixes its channels, ducks others under the one it talked on last, and is turned down while the microphone is open', async (t) => {
  const from = now();
  await onMedical.press('medical');
  await onMedical.granted('medical');
  const medical = await sounding(MEDICAL_HZ, from);
  await onOps.press('ops'); // where the desk talked in an earlier test
  await onOps.granted('ops');
  await sounding(OPS_HZ, from);
  const ducked = await comparedTo(medical, MEDICAL_HZ);
  t.diagnostic(`ducked by ${ducked.toFixed(1)} dB`);
  assert.ok(Math.abs(ducked - DUCK_DB) < 2, `ducked by ${ducked} dB`);
  await onOps.release();
  await onOps.idle('ops');

  await gateway.move('desk.ptt.ops', true);
  await onOps.until('the desk to talk', (state) => state.channels.ops.speaker === 'Desk 1');
  const by = await comparedTo(medical, MEDICAL_HZ);
  t.diagnostic(`turned down by ${by.toFixed(1)} dB`);
  assert.ok(Math.abs(by - DIM_DB) < 2, `turned down by ${by} dB`);
  await gateway.move('desk.ptt.ops', false);
  await onOps.idle();
  const shut = now();
  await sounding(MEDICAL_HZ, shut);
  const loud = loudspeaker.sound.between(shut).toneSpan(MEDICAL_HZ);
  assert.ok(Math.abs(decibel(loud.level / medical.level)) < 2, 'it was not turned up again');
  await onMedical.release();
  await onMedical.idle('medical');
});

test('the desk cuts in on a talker: its loudspeaker falls silent at once', async (t) => {
  const from = now();
  await onOps.press('ops');
  await onOps.granted('ops');
  await sounding(OPS_HZ, from);
  await gateway.move('desk.ptt.ops', true);
  await onOps.shows('.message', 'Dispatch Desk 1 has priority');
  const cut = await gateway.audited("action = 'priority_ptt.interrupted' AND 'olga' IN (actor, target)");
  const span = (await loudspeaker.reaches(now() + 300)).between(from).toneSpan(OPS_HZ);
  const after = span.until - decidedAt(cut);
  t.diagnostic(`the interrupted talker sounded for ${Math.round(after)} ms after the decision`);
  // F3: 40 ms may still sound. The sound server's pieces come on top, once for the gateway and once for the recorder.
  assert.ok(after <= 40 + 40, `the interrupted talker sounded for ${after} ms after the decision`);
  await gateway.move('desk.ptt.ops', false);
  await onOps.release();
  await onOps.idle();
  await gateway.assertNothingAfterShut();
});

test('cutting off one channel leaves no hole in what the loudspeaker plays of another', async (t) => {
  let from = now();
  await onMedical.press('medical');
  await onMedical.granted('medical');
  await sounding(MEDICAL_HZ, from);
  await onOps.press('ops');
  await onOps.granted('ops');
  await sounding(OPS_HZ, from);
  from = now();
  await dispatcher.pressPriority('ops');
  await dispatcher.granted('ops');
  const mark = await gateway.audited("action = 'priority_ptt.start' AND actor = 'dora'");
  const sound = await loudspeaker.reaches(decidedAt(mark) + 600);
  await dispatcher.release();
  await onOps.release();
  await onMedical.release();
  await onMedical.idle('medical');

  // Steps of 20 ms in which the tone of medical is missing; it is ducked under ops.
  const audible = 0.1 * 10 ** (DUCK_DB / 20);
  let silentMs = 0;
  for (let at = from; at < decidedAt(mark) + 500; at += 20) {
    if (!sound.between(at, at + 25).toneSpan(MEDICAL_HZ, audible)) silentMs += 20;
  }
  t.diagnostic(`medical was silent for ${silentMs} ms`);
  assert.ok(silentMs <= 20, `medical was silent for ${silentMs} ms because ops was cut`);
});

test('while the emergency button is held, the loudspeaker sounds a tone and the lamp blinks; letting go early stops both', async (t) => {
  const lampOf = () => gateway.isActive('desk.tally.emergency');
  const from = now();
  await gateway.move('desk.emergency', true);
  await waitFor('the emergency lamp to be lit', lampOf);
  await waitFor('the emergency lamp to be dark', async () => !(await lampOf()));
  await sounding(ARMING_HZ, from);
  await gateway.move('desk.emergency', false);
  const aborted = await gateway.audited("action = 'emergency_broadcast.aborted'");
  assert.ok(aborted.detail.heldMs < 2000);
  const sound = (await loudspeaker.reaches(now() + 500)).between(from);
  const end = sound.toneSpan(ARMING_HZ).until - decidedAt(aborted);
  t.diagnostic(`sounded until ${Math.round(end)} ms after letting go`);
  assert.ok(end < 200, `sounded until ${end} ms after letting go`);
  assert.equal(await lampOf(), false);
  assert.deepEqual(await gateway.audit("action = 'emergency_broadcast.start'"), []);
});

test('an emergency is the loudest that the loudspeaker plays', async (t) => {
  let from = now();
  await dispatcher.pressPriority('ops');
  await dispatcher.granted('ops');
  const ordinary = await sounding(DISPATCH_HZ, from);
  await dispatcher.release();
  await dispatcher.idle('ops');
  await dispatcher.page.locator('#emergency-guard').click();
  await dispatcher.page.locator('#emergency').hover();
  await dispatcher.page.mouse.down();
  await onMedical.until('the emergency', (state) => state.emergency);
  from = now();
  await sounding(DISPATCH_HZ, from);
  const louder = await comparedTo(ordinary, DISPATCH_HZ);
  t.diagnostic(`louder by ${louder.toFixed(1)} dB`);
  // Where that would clip, the limiter takes a little back.
  assert.ok(louder > EMERGENCY_DB - 2 && louder < EMERGENCY_DB + 0.5, `louder by ${louder} dB`);
  await dispatcher.release();
  await onMedical.until('the end of the emergency', (state) => !state.emergency);
});

test('no script of any page failed', () => {
  for (const page of [onOps, onMedical, dispatcher]) page.assertNoTroubles();
});
