// A radio port with real sound: speech and tones go through ALSA devices, and people in browsers hear and talk to it.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Gateway } from './gateway.mjs';
import { Browser } from './page.mjs';
import { SAMPLES_PER_MS, SERVER_MS, STEP_MS, SoundServer, joined, likeness, listen, now, speech, tone, watchLine } from './sound.mjs';
import { waitFor } from './wait.mjs';

const CHANNELS = ['security'];
const TALKER_HZ = 400;
const DISPATCH_HZ = 800;
const RADIO_HZ = 1200;
/** The radio's own figures: see `[[radio]]` in the sample configuration, whose defaults these are. */
const LEAD_IN_MS = 200;
const HANG_MS = 100;
/**
 * How alike the envelopes of what was said and of what was heard must be on average, by correlation, once the browser has
 * caught up: at the start of a transmission 200 ms of look-back are sent at once, and it plays faster for a while.
 */
const ALIKE = 0.8;
/** The same while it still catches up, which bends the first word. */
const ALIKE_AT_FIRST = 0.7;
/** A word is looked for so long after it was on air. */
const LATEST_MS = 500;

let sounds;
let gateway;
let browser;
let listener;
let talker;
let dispatcher;
let ear;

before(async () => {
  sounds = await SoundServer.start('radio_rx', 'radio_tx');
  const pcms = ['--radio-capture', 'radio_rx', '--radio-playback', 'radio_tx'];
  gateway = await Gateway.launch(['--demo', ...pcms], sounds.env);
  browser = await Browser.launch();
  listener = await browser.talkPage(gateway, { user: 'lara', name: 'Lara', channels: CHANNELS });
  talker = await browser.talkPage(gateway, { user: 'gina', name: 'Gina', channels: CHANNELS }, TALKER_HZ);
  dispatcher = await browser.talkPage(gateway, { user: 'dora', name: 'Dora', role: 'dispatch', channels: CHANNELS }, DISPATCH_HZ);
  ear = await listen(listener.page);
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
  await sounds?.stop();
});

const speaker = () => listener.channel('security').then(({ speaker }) => speaker);
const carrier = (active) => gateway.move('radio.vhf.carrier', active);
const isKeyed = () => gateway.isActive('radio.vhf.ptt');
const unkeyed = () => waitFor('the transmitter to be unkeyed', async () => !(await isKeyed()));
const lastSeq = async () => (await gateway.audit()).at(-1)?.seq ?? 0;

/** Waits until a time of the monotonic clock. */
const reached = (ms) => waitFor('the time to pass', async () => now() >= ms);

/** When a row of the audit was decided, in ms of the monotonic clock. */
const decidedAt = ({ mono_ns }) => mono_ns / 1e6;

const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Fails unless each word was heard, a moment after it was said. */
function assertHeard(t, words, onAir, heard, least = ALIKE) {
  let { at } = likeness(joined(words), onAir);
  const found = words.map((word) => {
    const said = at;
    at += word.length / SAMPLES_PER_MS;
    const place = heard.between(said, at + LATEST_MS);
    const best = likeness(word, place);
    return { alike: best.correlation, delay: best.at - said, backwards: likeness(word.slice().reverse(), place).correlation };
  });
  const list = (of, digits) => found.map((word) => word[of].toFixed(digits)).join(', ');
  t.diagnostic(`words are alike by ${list('alike', 2)} (backwards by ${list('backwards', 2)}), heard ${list('delay', 0)} ms after they were on air`);
  const alike = average(found.map(({ alike }) => alike));
  const backwards = average(found.map(({ backwards }) => backwards));
  assert.ok(alike > least, `what was heard is like what was said by ${alike.toFixed(2)} only`);
  assert.ok(backwards < least - 0.1, `the measure is worth nothing: speech played backwards is alike by ${backwards.toFixed(2)}`);
}

test('the sound devices of the radio are open', () => {
  assert.deepEqual(gateway.ready.degraded, []);
});

test('what people say over the radio is heard in a browser', async (t) => {
  const said = speech();
  const file = sounds.wav('speech.wav', joined(said));
  await carrier(true);
  await waitFor('the radio to have the floor', async () => (await speaker()) === 'VHF 1');
  await listener.shows('.speaker', /VHF 1.*General/, 'security');
  const { speakerRole } = await listener.channel('security');
  assert.equal(speakerRole, 'GENERAL');
  // By then the browser has caught up with the look-back.
  await reached(now() + 5000);

  const onAir = await sounds.record('radio_rx');
  const from = now();
  await sounds.play('radio_rx', file).ended;
  const heard = (await ear.reaches(now() + 500)).between(from);
  await carrier(false);
  await listener.idle('security');

  assertHeard(t, said, onAir.sound.between(from), heard);
  const open = await gateway.audited("action = 'radio.carrier_open' AND actor = 'radio-vhf'");
  const start = await gateway.audited("action = 'ptt.start' AND actor = 'radio-vhf' AND channel = 'security'");
  const stop = await gateway.audited(`action = 'ptt.stop' AND actor = 'radio-vhf' AND burst = '${start.burst}'`);
  assert.equal(start.role, 'GENERAL');
  assert.ok(open.seq < start.seq && start.seq < stop.seq);
  assert.deepEqual(await gateway.audit("action = 'radio.keyed'"), [], 'the radio was keyed for its own voice');
  await gateway.assertNothingAfterShut();
});

test('the first syllable, spoken before the carrier was seen, is heard too', async (t) => {
  // A tone that begins before the carrier does: what is heard must be longer than the carrier was open.
  const onAir = await sounds.record('radio_rx');
  const player = sounds.play('radio_rx', sounds.wav('radio.wav', tone(RADIO_HZ, 60)));
  t.after(() => player.stop());
  await waitFor('the tone to be on air', async () => {
    const span = onAir.sound.toneSpan(RADIO_HZ);
    return span && now() - span.from > 400;
  });
  const from = now();
  const mark = await lastSeq();
  await carrier(true);
  await waitFor('the radio to have the floor', async () => (await speaker()) === 'VHF 1');
  await reached(from + 2000);
  await carrier(false);
  await listener.idle('security');
  await player.stop();
  const start = await gateway.audited(`seq > ${mark} AND action = 'ptt.start' AND actor = 'radio-vhf'`);
  const stop = await gateway.audited(`seq > ${mark} AND action = 'ptt.stop' AND actor = 'radio-vhf'`);
  const span = (await ear.reaches(now() + 500)).between(from).toneSpan(RADIO_HZ);
  const open = decidedAt(stop) - decidedAt(start);
  const lookBack = (await gateway.bursts()).find(({ burst }) => burst === start.burst).received * STEP_MS - open;
  t.diagnostic(`open for ${Math.round(open)} ms, ${Math.round(lookBack)} ms more were sent, heard for ${Math.round(span.until - span.from)} ms, from ${Math.round(span.from - decidedAt(start))} ms after the grant on`);
  // 200 ms are kept; frames of 20 ms may fall on either side of the grant and of the end.
  assert.ok(Math.abs(lookBack - 200) <= 2 * STEP_MS, `${lookBack} ms of sound from before the grant were sent`);
});

test('the radio is keyed before the first sample goes out and until the last has sounded', async (t) => {
  await unkeyed();
  const transmitted = await sounds.record('radio_tx');
  for (const round of [1, 2]) {
    const ptt = watchLine(gateway, 'radio.vhf.ptt');
    const mark = await lastSeq();
    const from = now();
    await talker.press('security');
    await talker.granted('security');
    await waitFor('the tone to go out', async () => {
      const span = transmitted.sound.between(from).toneSpan(TALKER_HZ);
      return span && span.until - span.from > 1000;
    });
    await talker.release();
    await waitFor('the radio to be keyed and unkeyed', async () => ptt.changes.length >= 2);
    const sound = (await transmitted.reaches(now() + 300)).between(from);
    await ptt.stop();
    const [key, unkey, ...others] = ptt.changes;
    assert.deepEqual([key.active, unkey.active, others], [true, false, []], 'the transmitter flutters');

    const span = sound.toneSpan(TALKER_HZ);
    // The audit's stamps are exact; that they are the line's is shown by the looks that saw it change.
    const keyed = await gateway.audited(`seq > ${mark} AND action = 'radio.keyed'`);
    const released = await gateway.audited(`seq > ${mark} AND action = 'radio.unkeyed'`);
    for (const [row, { after, before }] of [[keyed, key], [released, unkey]]) {
      const at = decidedAt(row);
      assert.ok(at <= before && at >= after - 10, `${row.action} at ${at}, but the line changed between ${after} and ${before}`);
      assert.deepEqual([row.actor, row.channel], ['radio-vhf', 'security']);
    }
    const leadIn = span.from - decidedAt(keyed);
    const hang = decidedAt(released) - span.until;
    // The recorder's stamps may be off by the server's piece, the tone's edges by 5 ms and Opus's overlap of 7.
    const allowanceMs = SERVER_MS + 12;
    assert.ok(leadIn >= LEAD_IN_MS - allowanceMs, `the first sample went out ${leadIn} ms after the radio was keyed`);
    // Prefill and the device's own buffer come on top.
    assert.ok(leadIn <= LEAD_IN_MS + 200, `the radio was keyed for ${leadIn} ms before anything was said`);
    assert.ok(hang >= HANG_MS - allowanceMs, `the radio was unkeyed ${hang} ms after the last sample`);
    assert.ok(hang <= HANG_MS + 200, `the radio was still keyed ${hang} ms after the last sample`);
    assert.equal(await isKeyed(), false);
    // Whole, too: the lead-in cuts nothing off what was said.
    const start = await gateway.audited(`seq > ${mark} AND action = 'ptt.start' AND actor = 'gina'`);
    const { received } = (await gateway.bursts()).find(({ burst }) => burst === start.burst);
    t.diagnostic(`round ${round}: keyed ${Math.round(leadIn)} ms before the first sample, until ${Math.round(hang)} ms after the last; ` +
      `${received * STEP_MS} ms were said, ${Math.round(span.until - span.from)} ms went out`);
  }
});

test('a dispatcher cuts the radio off at once, and its carrier counts for nothing until it has dropped', async (t) => {
  await unkeyed();
  // A port ignores a carrier for 200 ms after its own transmission.
  await reached(now() + 250);
  const transmitted = await sounds.record('radio_tx');
  const player = sounds.play('radio_rx', sounds.wav('radio.wav', tone(RADIO_HZ, 60)));
  t.after(() => player.stop());
  const mark = await lastSeq();
  const from = now();
  await carrier(true);
  await listener.hearsTone(RADIO_HZ, 'security');
  // By then the browser has caught up with the look-back; what it holds is its own jitter buffer.
  await reached(now() + 5000);

  await dispatcher.pressPriority('security');
  await dispatcher.granted('security');
  await listener.hearsTone(DISPATCH_HZ, 'security');
  await listener.shows('.speaker', /Dora.*Dispatch/, 'security');
  const cut = await gateway.audited(`seq > ${mark} AND action = 'priority_ptt.interrupted' AND 'radio-vhf' IN (actor, target)`);
  const grant = await gateway.audited(`seq > ${mark} AND action = 'priority_ptt.start' AND actor = 'dora'`);
  const heard = (await ear.reaches(decidedAt(cut) + 1000)).between(from);
  const old = heard.toneSpan(RADIO_HZ);
  const fresh = heard.toneSpan(DISPATCH_HZ);
  t.diagnostic(`after the decision the radio was heard for ${Math.round(old.until - decidedAt(cut))} ms, the dispatcher from ${Math.round(fresh.from - decidedAt(cut))} ms on`);
  // What a browser has in its jitter buffer still sounds; not one packet more is sent.
  assert.ok(old.until - decidedAt(cut) <= 200, 'the radio was heard on');
  assert.ok(fresh.from - decidedAt(grant) <= 200, 'the dispatcher came late');
  await gateway.assertNothingAfterShut();

  // The radio receives, so it cannot send (radio-first): it stays unkeyed, and no sound goes to it.
  assert.equal(await isKeyed(), false, 'the radio was keyed against its own carrier');
  const leaked = (await transmitted.reaches(decidedAt(grant) + 1000)).between(from).toneSpan(DISPATCH_HZ);
  t.diagnostic(`sound sent to the unkeyed transmitter: ${leaked ? `${Math.round(leaked.until - leaked.from)} ms` : 'none'}`);

  // Nobody talks, and the carrier is still there: another has the whole of a burst, so the radio is not waiting.
  await dispatcher.release();
  await listener.idle('security');
  const dropped = now();
  await talker.press('security');
  await talker.granted('security');
  await listener.hearsTone(TALKER_HZ, 'security');
  await talker.release();
  await listener.idle('security');
  assert.equal(await speaker(), null);
  const silence = (await ear.reaches(now() + 300)).between(dropped + 300);
  assert.equal(silence.toneSpan(RADIO_HZ), null, 'the radio was heard without the floor');
  const again = `seq > ${grant.seq} AND action IN ('ptt.start', 'ptt.denied') AND actor = 'radio-vhf'`;
  assert.deepEqual(await gateway.audit(again), [], 'the radio asked again although its carrier had not dropped');

  await carrier(false);
  // The carrier is debounced: 20 ms.
  await reached(now() + 100);
  await carrier(true);
  await waitFor('the radio to have the floor again', async () => (await speaker()) === 'VHF 1');
  await listener.hearsTone(RADIO_HZ, 'security');
  await gateway.audited(again);
  await carrier(false);
  await listener.idle('security');
  await player.stop();
  await gateway.assertNothingAfterShut();
  assert.equal(leaked, null, 'the voice of somebody else went to the transmitter while it could not be keyed');
});

test('no script of any page failed', () => {
  for (const page of [listener, talker, dispatcher]) page.assertNoTroubles();
});

test('a radio without a carrier line talks while there is a voice, and for the hang time after it', async (t) => {
  const demo = readFileSync(fileURLToPath(new URL('../../src/gateway/demo.toml', import.meta.url)), 'utf8');
  const hangMs = 700;
  const config = demo.replace(/^carrier_line = .*$/m, `vox_threshold_dbfs = -35.0\nvox_attack_ms = 10\nvox_hang_ms = ${hangMs}`);
  assert.notEqual(config, demo);
  const file = sounds.file('vox.toml', config);
  const pcms = ['--radio-capture', 'radio_rx', '--radio-playback', 'radio_tx'];
  const vox = await Gateway.launch(['--config', file, ...pcms], sounds.env);
  try {
    assert.deepEqual(vox.ready.degraded, []);
    const page = await browser.talkPage(vox, { user: 'lara', name: 'Lara', channels: CHANNELS });
    const voxEar = await listen(page.page);
    const said = speech().slice(0, 3);
    const onAir = await sounds.record('radio_rx');
    const from = now();
    await sounds.play('radio_rx', sounds.wav('words.wav', joined(said))).ended;
    const start = await vox.audited("action = 'ptt.start' AND actor = 'radio-vhf'");
    const stop = await vox.audited("action = 'ptt.stop' AND actor = 'radio-vhf'");
    await page.idle('security');
    assert.equal(start.channel, 'security');
    assert.equal(stop.burst, start.burst, 'the floor was lost between two words');
    await vox.audited("action = 'radio.carrier_open' AND actor = 'radio-vhf'");

    const sent = (await onAir.reaches(now())).between(from);
    assertHeard(t, said, sent, (await voxEar.reaches(now() + 300)).between(from), ALIKE_AT_FIRST);
    const loud = sent.envelope();
    const threshold = 10 ** (-35 / 20);
    const firstLoud = sent.startMs + loud.findIndex((level) => level >= threshold) * STEP_MS;
    const lastLoud = sent.startMs + (loud.findLastIndex((level) => level >= threshold) + 1) * STEP_MS;
    const opened = decidedAt(start) - firstLoud;
    const closed = decidedAt(stop) - lastLoud;
    t.diagnostic(`granted ${Math.round(opened)} ms after the voice began, given back ${Math.round(closed)} ms after it ended`);
    // A frame of 20 ms, the attack and the server's pieces on both sides.
    assert.ok(opened >= -SERVER_MS && opened <= 150, `opened after ${opened} ms`);
    assert.ok(Math.abs(closed - hangMs) <= 120, `given back after ${closed} ms`);
    page.assertNoTroubles();
  } finally {
    await vox.stop();
  }
});
