// Clients that exist: mediasoup-client as it is published, used as it was before this gateway.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { build } from '../../web/node_modules/esbuild/lib/main.js';
import { Gateway } from './gateway.mjs';
import { Browser } from './page.mjs';
import { waitFor } from './wait.mjs';

/** One packet every 20 ms. */
const RATE = 50;

let gateway;
let browser;
let bundle;
const present = new Set();

before(async () => {
  const bundled = await build({
    entryPoints: [new URL('existing-client.js', import.meta.url).pathname],
    nodePaths: [new URL('../../web/node_modules', import.meta.url).pathname],
    bundle: true,
    write: false,
    format: 'iife',
    logLevel: 'error',
  });
  bundle = bundled.outputFiles[0].text;
  gateway = await Gateway.start();
  browser = await Browser.launch();
});

// Whoever is left over from a test that failed must not disturb the next.
afterEach(async () => {
  for (const existing of [...present]) await existing.close();
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
});

/** A participant in a page of its own, with one socket for each channel that it opens. */
class Existing {
  static async start(user, { role = 'general', hz = 400 } = {}) {
    const existing = new Existing();
    Object.assign(existing, { user, role });
    present.add(existing);
    existing.page = await browser.blank(hz);
    existing.troubles = [];
    existing.page.on('pageerror', (error) => existing.troubles.push(error.message));
    await existing.page.addInitScript(bundle);
    await existing.page.goto(`${gateway.url}/assets/style.css`);
    return existing;
  }

  /** Opens a socket for `channel` and joins it; `socket` is its name, if there is more than one for the channel. */
  async open(channel = 'ops', { socket = channel, ...options } = {}) {
    const token = await gateway.token({ user: this.user, name: this.user, role: this.role, channels: ['ops', 'medical'] });
    await this.page.evaluate((all) => window.openClient(...all), [socket, this.user, token, channel, options]);
  }

  /** Runs `what(client, argument)` in the page, on one of its sockets. */
  on(socket, what, argument) {
    const source = `(argument) => (${what})(window.clients['${socket}'], argument)`;
    return this.page.evaluate(`(${source})(${JSON.stringify(argument ?? null)})`);
  }

  async talk(socket = 'ops') {
    const reply = await this.on(socket, (client) => client.press());
    assert.equal(reply.success, true, JSON.stringify(reply));
    return reply.state.burstId;
  }

  release(socket = 'ops') {
    return this.on(socket, (client) => client.release());
  }

  inbound(socket = 'ops') {
    return this.on(socket, (client) => client.inbound());
  }

  /** Waits until sound has come in, `packets` more than now. */
  async hears(socket = 'ops', packets = 25) {
    const before = await this.inbound(socket);
    return waitFor(`${this.user} to hear ${packets} packets on ${socket}`, async () => {
      const now = await this.inbound(socket);
      if (now.packets - before.packets < packets || now.energy <= before.energy) throw new Error(JSON.stringify(now));
      return now;
    });
  }

  pushes(socket, type) {
    return this.on(socket, (client, type) => client.pushes.filter((push) => push.type === type), type);
  }

  async close() {
    present.delete(this);
    await this.page.context().close();
    assert.deepEqual(this.troubles, [], `scripts of ${this.user}'s page failed`);
  }
}

test('a producer is made at join and starts paused; a press is heard without anything being negotiated', async () => {
  const [talker, listener] = [await Existing.start('tess'), await Existing.start('lou')];
  await talker.open();
  await listener.open();
  // The muted producer sends all the time; that is no concern of anybody's.
  await waitFor('packets of the paused producer to be dropped', async () => {
    const stats = await (await fetch(`${gateway.url}/api/stats`)).json();
    return stats.media.dropped.gateShut > 25;
  });
  assert.equal((await listener.inbound()).packets, 0);

  const before = (await talker.page.evaluate(() => window.testing.wire)).length;
  const heardAt = listener.on('ops', async (client) => {
    while ((await client.inbound()).packets === 0) await new Promise((resume) => setTimeout(resume, 5));
    return Date.now();
  });
  const burst = await talker.talk();
  const latencyMs = await heardAt - await talker.on('ops', (client) => client.repliedAt);
  await listener.hears();
  // The listener's transport connects with this first consume; a producer made only now would take far longer.
  assert.ok(latencyMs < 500, `${latencyMs} ms from the grant to the first packet at a listener`);
  console.log(`# ${latencyMs} ms from the grant to the first packet`);
  const sent = (await talker.page.evaluate(() => window.testing.wire)).slice(before).filter(({ out }) => out);
  assert.deepEqual(sent.map(({ message }) => message.type), ['ptt-start']);
  await talker.release();
  const count = (await gateway.bursts()).find((entry) => entry.burst === burst);
  assert.ok(count.forwarded > 0 && count.afterShut === 0, JSON.stringify(count));
});

test('consuming anew for every burst keeps one stream: the earlier consumers retire', async () => {
  const [talker, listener] = [await Existing.start('tess'), await Existing.start('lou')];
  await talker.open();
  await listener.open();
  for (let burst = 1; burst <= 6; burst++) {
    await talker.talk();
    await waitFor(`consumer ${burst}`, () => listener.on('ops', (client, burst) => client.consumers.length === burst, burst));
    await listener.hears();
    if (burst < 6) await talker.release();
  }
  const from = await listener.inbound();
  const to = await waitFor('two seconds of the sixth burst', async () => {
    const now = await listener.inbound();
    return now.at - from.at >= 2000 && now;
  });
  const rate = (to.packets - from.packets) / ((to.at - from.at) / 1000);
  assert.ok(rate > 0.8 * RATE && rate < 1.2 * RATE, `${rate.toFixed(1)} packets a second on six consumers`);
  const { media } = await (await fetch(`${gateway.url}/api/stats`)).json();
  assert.equal(media.consumers.filter(({ user }) => user === 'lou').length, 1);
  console.log(`# ${rate.toFixed(1)} packets/s after six consumes`);
});

test('an ICE restart of both transports in the middle of a burst is not heard', async () => {
  const [talker, listener] = [await Existing.start('tess'), await Existing.start('lou')];
  await talker.open();
  await listener.open();
  const burst = await talker.talk();
  await listener.hears();
  await talker.on('ops', (client) => client.restartIce());
  await listener.hears();
  await listener.on('ops', (client) => client.restartIce());
  await listener.hears('ops', 100);
  assert.equal((await gateway.bursts()).at(-1).burst, burst, 'it is the same burst');
  for (const [who, transports] of [[talker, ['send']], [listener, ['receive']]]) {
    for (const transport of transports) {
      assert.equal(await who.on('ops', (client, transport) => client[transport].connectionState, transport), 'connected');
    }
  }
  await talker.release();
});

test('a producer that is closed and made again is heard, also in the middle of a burst', async () => {
  const [talker, listener] = [await Existing.start('tess'), await Existing.start('lou')];
  await talker.open();
  await listener.open();
  const first = await talker.on('ops', (client) => client.producer.id);
  await talker.on('ops', async (client) => { await client.closeProducer(); await client.produce(); });
  assert.notEqual(await talker.on('ops', (client) => client.producer.id), first);
  const burst = await talker.talk();
  await listener.hears();
  await talker.on('ops', async (client) => {
    await client.closeProducer();
    await client.produce();
    client.producer.resume();
  });
  await listener.hears();
  assert.equal((await gateway.bursts()).at(-1).burst, burst, 'it is the same burst');
  await talker.release();
});

test('Chromium may be the DTLS server where it sends, as libmediasoupclient is', async () => {
  const [talker, listener] = [await Existing.start('tess'), await Existing.start('lou')];
  await talker.open('ops', { dtlsServer: true });
  await listener.open('ops', { dtlsServer: true });
  await talker.talk();
  await listener.hears();
  for (const [who, expected] of [[talker, ['server']], [listener, ['server', 'client']]]) {
    const wire = await who.page.evaluate(() => window.testing.wire);
    const sent = wire.filter(({ out, message }) => out && message.type === 'connect-transport');
    assert.deepEqual(sent.map(({ message }) => message.data.dtlsParameters.role), expected);
  }
  await talker.release();
});

test('whoever joins while somebody talks hears the burst that runs', async () => {
  const [talker, late] = [await Existing.start('tess'), await Existing.start('lou')];
  await talker.open();
  const burst = await talker.talk();
  await late.open();
  assert.deepEqual(
    await late.on('ops', ({ joined: { channelState } }) => [channelState.currentSpeaker, channelState.burstId]),
    ['tess', burst],
  );
  await late.hears();
  assert.equal((await late.pushes('ops', 'speaker-changed')).length, 0, 'the reply to the join says it');
  await talker.release();
});

test('leaving one channel touches neither the other sockets of the user nor anybody else', async () => {
  const [lou, lea, tess] = [await Existing.start('lou'), await Existing.start('lea'), await Existing.start('tess')];
  await lou.open('ops');
  await lou.open('medical');
  await lea.open('ops');
  await tess.open('ops');
  await tess.open('medical');
  await tess.talk('ops');
  await lou.hears('ops');
  await lea.hears('ops');

  // A second join of the same socket, then one socket leaves and closes.
  await lea.on('ops', (client) => client.request('join-channel'));
  await lou.on('ops', async (client) => { await client.request('leave-channel'); client.close(); });
  await lea.hears('ops');
  await tess.release('ops');
  await waitFor('lea to be told', async () => (await lea.pushes('ops', 'speaker-changed')).length === 2);
  assert.equal((await lou.pushes('ops', 'speaker-changed')).length, 1, 'nothing after leaving');

  await tess.talk('medical');
  await lou.hears('medical');
  await tess.release('medical');
  await waitFor('lou to be told', async () => (await lou.pushes('medical', 'speaker-changed')).length === 2);
  const told = (await lea.pushes('ops', 'speaker-changed')).map(({ data }) => data.currentSpeaker);
  assert.deepEqual(told, ['tess', null], 'each change once, of this channel only');
});

test('what is meant for a user reaches all of its sockets', async () => {
  const [lou, dora] = [await Existing.start('lou'), await Existing.start('dora', { role: 'dispatch', hz: 800 })];
  await lou.open('ops');
  await lou.open('medical');
  await lou.open('ops', { socket: 'tablet' });
  await dora.open('ops');
  await lou.talk('ops');
  await dora.hears('ops');
  const reply = await dora.on('ops', (client) => client.press('priority-ptt-start'));
  assert.equal(reply.success, true);
  for (const socket of ['ops', 'medical', 'tablet']) {
    const [told, ...more] = await waitFor(`${socket} to be told`, async () => {
      const pushes = await lou.pushes(socket, 'ptt-interrupted');
      return pushes.length > 0 && pushes;
    });
    assert.deepEqual([told.data.message, told.data.channelId, more], ['Dispatch dora has priority', 'ops', []]);
  }
  // The user's second device hears the one who cut in; so does the first.
  await lou.hears('ops');
  await lou.hears('tablet');
  await dora.on('ops', (client) => client.request('force-disconnect', { targetUserId: 'lou', reason: 'Enough' }));
  for (const socket of ['ops', 'medical', 'tablet']) {
    assert.equal(await lou.on(socket, (client) => client.closed), 4003);
    assert.equal((await lou.pushes(socket, 'force-disconnect'))[0].data.reason, 'Enough');
  }
});

test('not a packet of any burst went astray', async () => {
  await gateway.assertNothingAfterShut();
});
