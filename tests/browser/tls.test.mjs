// Phones come over the network, by TLS: a browser on a network of its own, which trusts the gateway because its
// authority was installed, and for no other reason.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { connect } from 'node:tls';
import { Elsewhere } from './elsewhere.mjs';
import { BIN, Gateway } from './gateway.mjs';
import { Browser } from './page.mjs';
import { waitFor } from './wait.mjs';

const DEMO = fileURLToPath(new URL('../../src/gateway/demo.toml', import.meta.url));
const HZ = 500;

const work = mkdtempSync(path.join(tmpdir(), 'crosspatch-tls-'));
after(() => rmSync(work, { recursive: true, force: true }));

const portOf = (gateway) => Number(gateway.ready.tls.address.split(':').at(-1));
const authorityOf = (gateway) => path.join(gateway.dir, 'tls', 'ca.pem');

/** The gateway as others know it: the same, at another address. */
const at = (gateway, address) => ({ url: `https://${address}:${portOf(gateway)}`, token: (of) => gateway.token(of) });

/** The certificate that the gateway shows at an address to a client that trusts its authority only. */
function certificateAt(gateway, host) {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port: portOf(gateway), ca: readFileSync(authorityOf(gateway)) }, () => {
      resolve(socket.getPeerX509Certificate());
      socket.destroy();
    });
    socket.once('error', reject);
  });
}

function elsewhere() {
  try {
    return { there: Elsewhere.open() };
  } catch (error) {
    const why = `network namespaces are not permitted here: ${(error.stderr || error.message).trim()}`;
    if (process.env.CI === 'true') throw new Error(why);
    return { skip: why };
  }
}

const { there, skip = false } = elsewhere();

test('a browser can be put on a network of its own', { skip }, () => assert.equal(there.addresses.length, 2));

describe('a browser on the network', { skip }, () => {
  let gateway;
  let second;
  let browser;
  let talker;

  before(async () => {
    const [preferred, other] = there.addresses;
    gateway = await Gateway.start('--listen-tls', '0.0.0.0:0');
    // Tells clients only the address that the system would not answer from by itself.
    const config = path.join(work, 'other.toml');
    writeFileSync(config, `${readFileSync(DEMO, 'utf8')}\n[tls]\nlisten = "${preferred}:0"\n[media]\nannounce = ["${other}"]\n`);
    second = await Gateway.launch(['--config', config]);
    browser = await there.browser([authorityOf(gateway), authorityOf(second)]);
  });

  after(async () => {
    await browser?.close();
    await gateway?.stop();
    await second?.stop();
    there.close();
  });

  test('refuses the page while it does not trust the authority', async () => {
    const stranger = await there.browser([]);
    const page = await stranger.blank(HZ);
    await assert.rejects(page.goto(`${at(gateway, there.addresses[0]).url}/talk`), /ERR_CERT_AUTHORITY_INVALID/);
    await stranger.close();
  });

  test('gets a secure page and a microphone once it trusts the authority', async () => {
    talker = await browser.talkPage(at(gateway, there.addresses[0]), { user: 'gina', name: 'Gina' }, HZ);
    assert.match(talker.page.url(), /^https:/);
    assert.equal(await talker.page.evaluate(() => window.isSecureContext), true);
    const [label, state] = await talker.page.evaluate(async () => {
      const [track] = (await navigator.mediaDevices.getUserMedia({ audio: true })).getAudioTracks();
      return [track.label, track.readyState];
    });
    assert.match(label, /fake/i);
    assert.equal(state, 'live');
  });

  test('is heard by another on the network and by one on the box itself', async () => {
    const listener = await browser.talkPage(at(gateway, there.addresses[0]), { user: 'lara', name: 'Lara' });
    const local = await Browser.launch();
    const inside = await local.talkPage(gateway, { user: 'ida', name: 'Ida' });
    await talker.press();
    await talker.granted();
    for (const page of [listener, inside]) {
      const { totalAudioEnergy } = await page.hears();
      assert.ok(totalAudioEnergy > 0);
      await page.hearsTone(HZ);
    }
    await talker.release();
    await listener.idle();
    await gateway.assertNothingAfterShut();
    for (const page of [talker, listener, inside]) page.assertNoTroubles();
    await local.close();
  });

  test('is answered from the address it asked, though the system prefers another', async () => {
    const box = at(second, there.addresses[0]);
    const [one, two] = [
      await browser.talkPage(box, { user: 'gina', name: 'Gina' }, HZ),
      await browser.talkPage(box, { user: 'lara', name: 'Lara' }),
    ];
    await one.press();
    await one.granted();
    await two.hears();
    await two.hearsTone(HZ);
    await one.release();
  });

  test('cannot press the buttons of the board, nor see the front panel', async () => {
    const statuses = await talker.page.evaluate(async () => {
      const headers = { 'content-type': 'application/json' };
      const press = { method: 'POST', headers, body: '{"active":true}' };
      const answers = [fetch('/api/sim/lines/desk.emergency', press), fetch('/api/panel'), fetch('/api/stats')];
      return (await Promise.all(answers)).map(({ status }) => status);
    });
    assert.deepEqual(statuses, [403, 403, 403]);
    assert.equal(await gateway.isActive('desk.emergency'), false);
  });

  test('is shown the fingerprint to compare and gets the authority to install', async () => {
    const { fingerprint, origins } = gateway.ready.tls;
    const authority = new X509Certificate(readFileSync(authorityOf(gateway)));
    assert.equal(fingerprint, authority.fingerprint256);
    assert.match(gateway.log, new RegExp(fingerprint));
    assert.ok(origins.includes(at(gateway, there.addresses[0]).url), origins.join(' '));

    const page = await browser.blank(HZ);
    await page.goto(`${at(gateway, there.addresses[0]).url}/trust`);
    assert.equal(await page.locator('#fingerprint').innerText(), fingerprint);
    const got = await page.evaluate(async () => {
      const answer = await fetch(document.querySelector('a.button').href);
      return { type: answer.headers.get('content-type'), text: await answer.text() };
    });
    assert.equal(got.type, 'application/x-x509-ca-cert');
    assert.equal(new X509Certificate(got.text).fingerprint256, fingerprint);
    const plain = await fetch(`${gateway.url}/ca.pem`);
    assert.equal(await plain.text(), got.text);

    const panel = await fetch(`${gateway.url}/api/panel`);
    assert.deepEqual((await panel.json()).tls, gateway.ready.tls);
  });

  test('is sent from the front panel, which works on the box only, to what to trust', async () => {
    const page = await browser.blank(HZ);
    await page.goto(at(gateway, there.addresses[0]).url);
    assert.equal(new URL(page.url()).pathname, '/trust');
  });

  test('is not disturbed by a new address of the box, which the certificate soon names', async () => {
    const before = await certificateAt(gateway, there.addresses[0]);
    const added = there.add();
    assert.equal(before.checkIP(added), undefined);
    const now = await waitFor(`the certificate to name ${added}`, () => certificateAt(gateway, added), { deadlineMs: 20_000 });
    assert.equal(now.checkIP(added), added);
    assert.equal(now.issuer, before.issuer);
    assert.equal((await talker.channel()).joined, true);
  });

  test('is told when the gateway ends', async () => {
    const gone = talker.page.evaluate(() => new Promise((resolve) => {
      const socket = new WebSocket(`wss://${location.host}/ws`, ['voiceping', `token-${new URLSearchParams(location.hash.slice(1)).get('token')}`]);
      socket.onopen = () => { window.testing.watching = true; };
      socket.onclose = ({ code }) => resolve(code);
    }));
    await waitFor('the socket to open', () => talker.page.evaluate(() => window.testing.watching));
    await gateway.stop();
    gateway = null;
    assert.equal(await gone, 1001);
  });
});

test('a browser of the box itself reaches TLS by a loopback name', async () => {
  const gateway = await Gateway.start('--listen-tls', '127.0.0.1:0');
  const certificate = await certificateAt(gateway, '127.0.0.1');
  assert.equal(certificate.checkHost('localhost'), 'localhost');
  const days = (Date.parse(certificate.validTo) - Date.parse(certificate.validFrom)) / 86_400_000;
  assert.ok(days <= 397, `valid for ${days} days`);
  const curl = (...args) => execFileSync('curl', ['-sS', '--cacert', authorityOf(gateway), ...args], { encoding: 'utf8' });
  const address = `https://localhost:${portOf(gateway)}`;
  assert.equal(curl('-o', '/dev/null', '-w', '%{http_code} %{http_version}', `${address}/talk`), '200 1.1');
  assert.equal(curl('-o', '/dev/null', '-w', '%{http_code}', `${address}/api/panel`), '200');
  await gateway.stop();
});

test('the front panel shows what to compare, and copies links that work from the network', async () => {
  const gateway = await Gateway.start('--listen-tls', '127.0.0.1:0');
  const browser = await Browser.launch();
  const page = await browser.blank(HZ);
  await page.addInitScript(() => {
    navigator.clipboard.writeText = async (text) => { window.testing.copied = text; };
  });
  await page.goto(gateway.url);
  await page.getByLabel('Copy the link for Dispatcher').click();
  const { origins, fingerprint } = gateway.ready.tls;
  const copied = await waitFor('the link to be copied', () => page.evaluate(() => window.testing.copied));
  assert.ok(copied.startsWith(`${origins[0]}/talk#token=`), copied);
  const shown = await page.locator('#trust').innerText();
  assert.ok(shown.includes(`${origins[0]}/trust`) && shown.includes(fingerprint), shown);
  await browser.close();
  await gateway.stop();
});

describe('a gateway that is to serve the network', () => {
  const ends = (...args) => {
    const { status, stderr } = spawnSync(BIN, args, { encoding: 'utf8', timeout: 20_000 });
    return { status, told: stderr };
  };
  const state = path.join(work, 'state');
  const openssl = (...args) => execFileSync('openssl', args, { stdio: 'ignore' });
  const inWork = (name) => path.join(work, name);

  before(() => {
    const self = (name, days) => openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
      '-subj', '/CN=gate.example', '-days', days, '-keyout', inWork(`${name}.key`), '-out', inWork(`${name}.pem`));
    self('good', '30');
    self('other', '30');
    self('soon', '10');
  });

  const config = (certificate, key) => {
    const file = inWork('own.toml');
    writeFileSync(file, `${readFileSync(DEMO, 'utf8')}\n[tls]\nlisten = "127.0.0.1:0"\ncertificate = "${certificate}"\nkey = "${key}"\n`);
    return file;
  };

  test('ends with 78 and says what to do when plain HTTP is open to the network', () => {
    const { status, told } = ends('run', '--demo', '--listen', '0.0.0.0:0', '--state-dir', state);
    assert.equal(status, 78);
    assert.match(told, /use --listen-tls 0\.0\.0\.0:0 instead/);
  });

  /** Pages and board as ever, and the fault is told wherever people look. */
  const runsWithoutTls = async (gateway, told) => {
    const [degraded, ...others] = gateway.ready.degraded;
    assert.deepEqual(others, []);
    assert.match(degraded, /^tls: .*; then restart the gateway/);
    assert.match(degraded, told);
    assert.equal(gateway.ready.tls, null);
    assert.match(gateway.log, /ERROR.*tls is degraded/);
    const panel = await (await fetch(`${gateway.url}/api/panel`)).json();
    assert.match(panel.degraded.find(({ part }) => part === 'tls').why, told);
    assert.match((await gateway.audited("action = 'system.degraded'")).detail.why, told);
    await gateway.move('desk.ptt.ops', true);
    await waitFor('the desk to talk', () => gateway.isActive('desk.tally.ops'));
    await gateway.move('desk.ptt.ops', false);
  };

  const faults = {
    'a file that is not there': ['none.pem', 'good.key', /none\.pem cannot be read/],
    'a key in place of the certificate': ['good.key', 'good.key', /good\.key holds no certificate/],
    'the key of another certificate': ['good.pem', 'other.key', /other\.key does not belong to the certificate/],
  };
  for (const [fault, [certificate, key, told]] of Object.entries(faults)) {
    test(`runs without TLS when the certificate is ${fault}, which is an error to check`, async () => {
      const file = config(certificate, key);
      const end = ends('check', '--config', file);
      assert.equal(end.status, 78, end.told);
      assert.match(end.told, told);
      assert.match(end.told, /own\.toml:\d+: /);
      const gateway = await Gateway.launch(['--config', file]);
      await runsWithoutTls(gateway, told);
      await gateway.stop();
    });
  }

  test('ends with 78 when only half of a pair is named', () => {
    const file = config('good.pem', 'good.key');
    writeFileSync(file, readFileSync(file, 'utf8').replace(/^key = .*$/m, ''));
    const end = ends('run', '--listen', '127.0.0.1:0', '--state-dir', state, '--config', file);
    assert.equal(end.status, 78, end.told);
    assert.match(end.told, /own\.toml:\d+: \[tls\] has only one of certificate and key/);
  });

  test('runs without TLS when its address is taken', async () => {
    const first = await Gateway.start('--listen-tls', '127.0.0.1:0');
    const second = await Gateway.start('--listen-tls', first.ready.tls.address);
    await runsWithoutTls(second, /cannot be listened on for TLS/);
    await second.stop();
    await first.stop();
  });

  test('serves an own certificate that ends soon, and people are told to renew it', async () => {
    const gateway = await Gateway.launch(['--config', config('soon.pem', 'soon.key')]);
    assert.match(gateway.ready.degraded.join(), /tls: the certificate \S*soon\.pem is valid until \S+ only; renew it/);
    const own = new X509Certificate(readFileSync(inWork('soon.pem')));
    assert.equal(gateway.ready.tls.fingerprint, own.fingerprint256);
    await gateway.stop();
  });

  test('serves an own certificate that is good', async () => {
    const gateway = await Gateway.launch(['--config', config('good.pem', 'good.key')]);
    const own = new X509Certificate(readFileSync(inWork('good.pem')));
    assert.equal(gateway.ready.tls.fingerprint, own.fingerprint256);
    assert.deepEqual(gateway.ready.degraded, []);
    assert.equal((await fetch(`${gateway.url}/ca.pem`)).status, 404);
    const curl = execFileSync('curl', ['-sS', '--cacert', inWork('good.pem'), '--connect-to', `::127.0.0.1:${portOf(gateway)}`,
      '-o', '/dev/null', '-w', '%{http_code}', 'https://gate.example/talk'], { encoding: 'utf8' });
    assert.equal(curl, '200');
    await gateway.stop();
  });
});
