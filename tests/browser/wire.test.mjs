// Bad input on every door while somebody talks: a clear error or a drop, and the talker notices nothing.
import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { after, afterEach, before, test } from 'node:test';
import { Client } from './client.mjs';
import { Gateway } from './gateway.mjs';
import { Browser } from './page.mjs';
import { waitFor, within } from './wait.mjs';

const HZ = 400;

let gateway;
let browser;
let talker;
let listener;
let burstAtStart;
let baseline; // what the listener had received before the test

before(async () => {
  gateway = await Gateway.start();
  browser = await Browser.launch();
  talker = await browser.talkPage(gateway, { user: 'tess', name: 'Tess', role: 'dispatch' }, HZ);
  listener = await browser.talkPage(gateway, { user: 'lou', name: 'Lou' });
  // A dispatcher, whose talking has no time limit, talks through all of this.
  await talker.pressPriority();
  await talker.granted();
  await listener.hearsTone(HZ);
  baseline = await listener.hears();
  burstAtStart = (await gateway.bursts()).at(-1).burst;
});

afterEach(async () => {
  assert.ok(gateway.isRunning, `the gateway has died:\n${gateway.log.slice(-4000)}`);
  assert.equal((await talker.channel()).granted, true, 'the talker lost the floor');
  const now = await listener.hears('ops', baseline);
  await listener.hearsTone(HZ);
  assert.equal(now.packetsLost, baseline.packetsLost, 'the listener lost packets');
  assert.equal(now.ssrc, baseline.ssrc, 'the listener was moved to another stream');
  baseline = now;
});

after(async () => {
  await browser?.close();
  await gateway?.stop();
});

const base64 = (data) => Buffer.from(data).toString('base64url');

/** A token made by hand; `sign` gets what is to be signed. */
const forge = (header, claims, sign) => {
  const body = `${base64(JSON.stringify(header))}.${base64(JSON.stringify(claims))}`;
  return `${body}.${sign(body)}`;
};
const hmac = (secret) => (body) => createHmac('sha256', secret).update(body).digest('base64url');
const claimsOf = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));

const somebody = { user: 'wanda', name: 'Wanda' };

test('text that is no JSON, or no object, is answered by an error, and the socket stays open', async () => {
  const client = await Client.as(gateway, somebody);
  for (const text of ['', '{', '{"type":"ping"', 'null', '[]', '42', '"ping"', '{}', '\u0000', '['.repeat(20_000)]) {
    const { error, id } = await client.errorAfter(text);
    assert.ok(error, `no words for ${text.slice(0, 20)}`);
    assert.equal(id, undefined);
  }
  await client.assertAlive();
  client.close();
});

test('wrong types, missing fields and unknown requests are errors that carry the id', async () => {
  const client = await Client.as(gateway, somebody);
  const wrong = [
    ['no-such-request', {}],
    ['join-channel', {}],
    ['join-channel', undefined],
    ['join-channel', 'ops'],
    ['join-channel', { channelId: ['ops'] }],
    ['ptt-start', { channelId: { id: 'ops' } }],
    ['create-transport', { channelId: 'ops', direction: 'sideways' }],
    ['connect-transport', { transportId: 'none', dtlsParameters: 7 }],
    ['produce', { transportId: 'none', kind: 'video', rtpParameters: {}, channelId: 'ops' }],
    ['consume', { channelId: 'ops', producerId: 'none', rtpCapabilities: null }],
    ['emergency-broadcast-arm', { pressed: 'yes' }],
    ['force-disconnect', { targetUserId: 12.5 }],
  ];
  for (const [type, data] of wrong) {
    const reply = await client.request(type, data);
    assert.equal(reply.type, 'error', `${type} ${JSON.stringify(data)} was answered by ${JSON.stringify(reply)}`);
    assert.ok(reply.error, `no words for ${type} ${JSON.stringify(data)}`);
    assert.match(reply.data?.code ?? '', /^[a-z]+(-[a-z]+)*$/);
  }
  const notText = await client.errorAfter('{"type": 5, "id": "number-as-type"}');
  assert.ok(notText.error);
  await client.assertAlive();
  client.close();
});

test('an unknown channel, and one that the token does not allow, are refused', async () => {
  const client = await Client.as(gateway, somebody);
  for (const channelId of ['no-such-channel', 'medical', '', '../ops', "ops'; DROP TABLE audit; --"]) {
    for (const type of ['join-channel', 'ptt-start']) {
      const reply = await client.request(type, { channelId });
      assert.equal(reply.type, 'error', `${type} ${channelId} was answered by ${JSON.stringify(reply)}`);
    }
  }
  await gateway.audited("action IN ('channel.join_denied', 'permission.denied') AND actor = 'wanda' AND channel = 'medical'");
  await client.assertAlive();
  client.close();
});

test('a dispatcher is needed to throw somebody out', async () => {
  const client = await Client.as(gateway, somebody);
  for (const type of ['force-disconnect', 'ban-user', 'emergency-broadcast-start']) {
    const reply = await client.request(type, { targetUserId: 'tess', holdDuration: 2500 });
    assert.equal(reply.type, 'error', `${type} was answered by ${JSON.stringify(reply)}`);
  }
  await gateway.audited("action = 'permission.denied' AND actor = 'wanda'");
  client.close();
});

test('a handshake without a good token is refused with 401', async () => {
  const good = await gateway.token(somebody);
  const claims = claimsOf(good);
  const [head, , signature] = good.split('.');
  const bad = {
    'no token': undefined,
    'no token at all, but text': 'let-me-in',
    'three empty parts': '..',
    'a foreign secret': forge({ alg: 'HS256', typ: 'JWT' }, claims, hmac(randomBytes(32))),
    'an empty secret': forge({ alg: 'HS256', typ: 'JWT' }, claims, hmac('')),
    'alg none': forge({ alg: 'none', typ: 'JWT' }, claims, () => ''),
    'alg None with a signature': forge({ alg: 'None', typ: 'JWT' }, claims, () => signature),
    'another algorithm': forge({ alg: 'HS512', typ: 'JWT' }, claims, () => signature),
    'a role written over': `${head}.${base64(JSON.stringify({ ...claims, role: 'DISPATCH' }))}.${signature}`,
    'no signature': good.slice(0, good.lastIndexOf('.') + 1),
  };
  for (const [what, token] of Object.entries(bad)) {
    assert.equal(await Client.refusal(gateway, token), 401, what);
  }
  const client = await Client.connect(gateway, good);
  await client.assertAlive();
  client.close();
});

test('a token is good until it expires, and refused from then on', async () => {
  const token = await gateway.token({ user: 'ede', name: 'Ede', expires: '3s' });
  assert.equal(await Client.refusal(gateway, token), 'accepted');
  const { exp } = claimsOf(token);
  // `exp` counts whole seconds, and its own second may still be good.
  await waitFor('the token to expire', () => Date.now() >= (exp + 1) * 1000);
  assert.equal(await Client.refusal(gateway, token), 401);
});

test('a message over 64 KiB closes with 1009', async () => {
  const client = await Client.as(gateway, somebody);
  client.send(JSON.stringify({ type: 'ping', id: 'big', data: { padding: 'x'.repeat(64 * 1024) } }));
  assert.equal(await within('the socket to close', client.closed), 1009);
});

test('a message of just under 64 KiB is answered', async () => {
  const client = await Client.as(gateway, somebody);
  const pong = await client.request('ping', { padding: 'x'.repeat(63 * 1024) });
  assert.deepEqual(pong.data, { type: 'pong' });
  client.close();
});

test('a binary frame closes with 1003', async () => {
  const client = await Client.as(gateway, somebody);
  client.send(Buffer.from('{"type":"ping","id":"binary"}'));
  assert.equal(await within('the socket to close', client.closed), 1003);
});

test('garbage on the media port is dropped', async () => {
  const socket = createSocket('udp4');
  const { host, port } = gateway.media;
  const shoot = (packet) => new Promise((resolve, reject) =>
    socket.send(packet, port, host, (error) => (error ? reject(error) : resolve())));
  const opening = (...bytes) => (length) => Buffer.concat([Buffer.from(bytes), randomBytes(length)]);
  const kinds = [
    opening(), // noise
    opening(0x00, 0x01, 0xff, 0xff, 0x21, 0x12, 0xa4, 0x42), // a STUN binding request that lies about its length
    opening(0x00, 0x01, 0x00, 0x00, 0x21, 0x12, 0xa4, 0x42), // one that has no attributes but a tail
    opening(0x16, 0xfe, 0xfd), // a DTLS handshake from nobody
    opening(0x17, 0xfe, 0xfd), // DTLS application data from nobody
    opening(0x80, 0x6f), // RTP from nobody
    opening(0xbf, 0x6f), // RTP with every count and flag at its most
    opening(0x80, 0xc8), // RTCP from nobody
  ];
  for (const length of [0, 1, 2, 3, 7, 11, 12, 19, 20, 21, 40, 160, 1200, 1500, 9000]) {
    for (const kind of kinds) for (let again = 0; again < 3; again++) await shoot(kind(length));
  }
  socket.close();
});

test('a client that hangs up in the middle of things leaves nothing behind', async () => {
  for (let round = 0; round < 10; round++) {
    const client = await Client.as(gateway, { user: 'hugo', name: 'Hugo' });
    client.send(JSON.stringify({ type: 'join-channel', id: 'a', data: { channelId: 'ops' } }));
    client.send(JSON.stringify({ type: 'create-transport', id: 'b', data: { channelId: 'ops', direction: 'recv' } }));
    client.close();
    await within('the socket to close', client.closed);
  }
});

test('through all of this it was one burst, and not a packet of it went astray', async () => {
  const bursts = await gateway.bursts();
  assert.equal(bursts.at(-1).burst, burstAtStart, 'the talker had to start again');
  await gateway.assertNothingAfterShut();
  talker.assertNoTroubles();
  listener.assertNoTroubles();
});

test('a sound card that does not exist is a degraded part, not a failed start', async () => {
  const lame = await Gateway.start('--radio-capture', 'crosspatch-no-such-pcm');
  assert.ok(lame.ready.degraded.length > 0, 'ready.json does not tell what is degraded');
  const client = await Client.as(lame, somebody);
  const joined = await client.request('join-channel', { channelId: 'ops' });
  assert.equal(joined.type, 'channel-state');
  const granted = await client.request('ptt-start', { channelId: 'ops' });
  assert.equal(granted.data.success, true);
  await lame.audited("action = 'system.degraded'");
  client.close();
  await lame.stop();
});
