// The desk's guarded button: two seconds of holding reach everybody, less reaches nobody.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { CHANNELS, Gateway } from './gateway.mjs';
import { Browser } from './page.mjs';
import { waitFor } from './wait.mjs';

let gateway;
let browser;
let members; // one on each channel, in the order of CHANNELS
let onTwo;

before(async () => {
  gateway = await Gateway.start();
  browser = await Browser.launch();
  members = [];
  for (const id of CHANNELS) {
    members.push(await browser.talkPage(gateway, { user: `member-${id}`, name: `Member of ${id}`, channels: [id] }));
  }
  onTwo = await browser.talkPage(gateway, { user: 'both', name: 'Member of two', channels: ['ops', 'medical'] });
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
});

test('an emergency button that is let go at once aborts, and is audited as that', async () => {
  await gateway.move('desk.emergency', true);
  await gateway.move('desk.emergency', false);
  const { actor, detail } = await gateway.audited("action = 'emergency_broadcast.aborted'");
  assert.equal(actor, 'desk-1');
  assert.ok(detail.heldMs >= 0 && detail.heldMs < 2000, `held for ${detail.heldMs} ms`);
  const [armed] = await gateway.audit("action = 'emergency_broadcast.armed'");
  assert.equal(armed.actor, 'desk-1');

  // A member talks from start to end: nothing of the emergency is left to stand in the way.
  await members[0].press('ops');
  await members[0].granted('ops');
  await onTwo.hears('ops');
  await members[0].release();
  await onTwo.idle('ops');
  assert.deepEqual(await gateway.audit("action = 'emergency_broadcast.start'"), []);
  for (const page of [...members, onTwo]) {
    const told = (await page.wire()).filter(({ message }) => message.type?.startsWith('emergency-broadcast'));
    assert.deepEqual(told, [], `${page.name} was told of an emergency that never was`);
  }
});

test('an emergency from the button interrupts a talker and is heard by the members of every channel', async () => {
  const talker = members[0];
  await talker.press('ops');
  await talker.granted('ops');
  await onTwo.hears('ops', await onTwo.inbound('ops'));
  const before = await Promise.all(members.map((member, index) => member.inbound(CHANNELS[index])));

  await gateway.move('desk.emergency', true);
  const lastAbort = "(SELECT max(seq) FROM audit WHERE action = 'emergency_broadcast.aborted')";
  const armed = await gateway.audited(`action = 'emergency_broadcast.armed' AND seq > ${lastAbort}`);
  const start = await gateway.audited("action = 'emergency_broadcast.start'");
  assert.equal(start.actor, 'desk-1');
  assert.equal(start.role, 'DISPATCH');
  assert.equal(start.detail.channelCount, CHANNELS.length);
  assert.match(JSON.stringify(start.detail.interrupted), /member-ops|Member of ops/, 'the interrupted talker is not named');
  const heldMs = (start.mono_ns - armed.mono_ns) / 1e6;
  // Both records are stamped when they are made: the first may be late by the debounce time. The exact hold is judged by
  // the edges' own stamps, which the world tests check.
  assert.ok(heldMs >= 1900, `the emergency began ${heldMs} ms after the press was seen`);
  await waitFor('the emergency light', () => gateway.isActive('desk.tally.emergency'));

  await talker.shows('.message', 'Emergency broadcast by Dispatch Desk 1', 'ops');
  assert.equal((await talker.channel('ops')).granted, false);
  for (const [index, member] of members.entries()) {
    await member.until('the emergency', (state) => state.emergency);
    await waitFor(`${member.name}'s banner to name the desk`, async () =>
      (await member.page.locator('#banner').innerText()).includes('Desk 1'));
    await member.hears(CHANNELS[index], before[index]);
  }
});

test('a member of two channels hears the emergency once, at the level of one channel', async () => {
  const single = members[CHANNELS.indexOf('medical')];
  // Both pages are measured over the same second and a half, in which 50 packets a second come in.
  const both = async () => ({
    ops: await onTwo.inbound('ops'),
    medical: await onTwo.inbound('medical'),
    single: await single.inbound('medical'),
  });
  const first = await both();
  const last = await waitFor('75 packets of the emergency', async () => {
    const now = await both();
    return now.single.packetsReceived - first.single.packetsReceived >= 75 && now;
  });
  const packets = (name) => last[name].packetsReceived - first[name].packetsReceived;
  const energyRate = (name) => (last[name].totalAudioEnergy - first[name].totalAudioEnergy) / (last[name].at - first[name].at);

  const growing = ['ops', 'medical'].filter((name) => packets(name) > 0);
  assert.equal(growing.length, 1, `packets came in on ${JSON.stringify(growing)}`);
  assert.equal(growing[0], 'ops', 'it comes on the channel that was joined first');
  assert.ok(energyRate('single') > 0, 'the emergency is silent');
  const ratio = (energyRate('ops') + energyRate('medical')) / energyRate('single');
  assert.ok(ratio > 0.5 && ratio < 2, `the member of two channels hears ${ratio.toFixed(2)} times the energy`);
});

test('while it runs, a press is denied with the name of the broadcaster', async () => {
  const member = members[CHANNELS.indexOf('logistics')];
  await member.press('logistics');
  const { reply } = await member.exchange('ptt-start');
  const { success, denied, currentSpeakerName } = reply.message.data;
  assert.deepEqual({ success, denied, currentSpeakerName }, { success: false, denied: true, currentSpeakerName: 'Desk 1' });
  await member.shows('.message', 'Desk 1', 'logistics');
  await member.release();
});

test('letting the button go ends it everywhere, nobody is granted again, and a new press works', async () => {
  const talker = members[0];
  await gateway.move('desk.emergency', false);
  for (const [index, member] of members.entries()) {
    await member.until('the end of the emergency', (state) => !state.emergency);
    await member.idle(CHANNELS[index]);
  }
  await waitFor('the emergency light to go out', async () => !(await gateway.isActive('desk.tally.emergency')));
  const stop = await gateway.audited("action = 'emergency_broadcast.stop'");
  assert.equal(stop.actor, 'desk-1');
  assert.ok(stop.cause, 'the audit does not say why it ended');
  assert.ok(stop.detail.durationMs > 0);

  // The interrupted talker still holds its button; that is worth nothing until it presses again.
  assert.equal((await talker.channel('ops')).granted, false);
  await talker.release();
  await talker.press('ops');
  await talker.granted('ops');
  await onTwo.hears('ops', await onTwo.inbound('ops'));
  await talker.release();
  await onTwo.idle('ops');
  await gateway.assertNothingAfterShut();
});

test('the audit holds one abort, one start and one stop, in this order', async () => {
  const rows = await gateway.audit("action LIKE 'emergency\\_broadcast.%' ESCAPE '\\'");
  assert.deepEqual(
    rows.map(({ action }) => action.split('.')[1]).filter((step) => step !== 'denied'),
    ['armed', 'aborted', 'armed', 'start', 'stop'],
  );
});

test('no script of any page failed', () => {
  for (const page of [...members, onTwo]) page.assertNoTroubles();
});
