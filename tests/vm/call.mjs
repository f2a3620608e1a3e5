// What a new user does with a box that tests/vm/call has started, from the network of its phones: docs/technician.md, step by step.
// usage: node call.mjs DIRECTORY PID, where the card, the serial log and the pictures are and the emulator that runs
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { homeThatTrusts } from '../browser/elsewhere.mjs';
import { Browser } from '../browser/page.mjs';
import { joined, tone, wavOf } from '../browser/sound.mjs';
import { waitFor } from '../browser/wait.mjs';

const [dir, box] = process.argv.slice(2);
const at = (name) => path.join(dir, name);
const run = promisify(execFile);

const ADDRESS = '192.168.77.2';
const NAME = 'gate-1.local';
/** A boot takes a minute where nothing else runs. */
const BOOT = { deadlineMs: 600_000 };
/** The emulator is slow. */
const SLOW = { deadlineMs: 120_000 };
const HZ = { ben: 500, anna: 900 };

let [passed, failed] = [0, 0];
/** Does what a person would do next. What fails is told; a step without which the others make no sense ends it. */
async function step(what, act) {
  try {
    const given = await act();
    passed += 1;
    console.error(`    ok: ${what}`);
    return given;
  } catch (error) {
    failed += 1;
    console.error(`    WRONG: ${what}: ${error.stack}`);
    return null;
  }
}

// ---- the network ----

/** An address for this end, from whoever gives one. */
async function lease() {
  const script = at('lease.sh');
  writeFileSync(script, `#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev lan
env >${at('lease')}
`);
  chmodSync(script, 0o755);
  await run('busybox', ['udhcpc', '-f', '-q', '-i', 'lan', '-t', '200', '-T', '3', '-n', '-s', script], { timeout: BOOT.deadlineMs });
  const told = readFileSync(at('lease'), 'utf8');
  return Object.fromEntries(told.trim().split('\n').map((line) => line.split(/=(.*)/s).slice(0, 2)));
}

/** Asks the network for the address of a name, as phones do: multicast DNS (RFC 6762). */
async function resolve(name, own) {
  const socket = createSocket({ type: 'udp4', reuseAddr: true });
  const labels = name.split('.').flatMap((label) => [Buffer.from([label.length]), Buffer.from(label)]);
  const question = Buffer.concat([...labels, Buffer.from([0, 0, 1, 0, 1])]); // an A record, of the Internet
  const query = Buffer.concat([Buffer.from([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]), question]);
  let found = null;
  socket.on('message', (answer, { address }) => {
    const isAnswer = answer.length > 12 && (answer[2] & 0x80) !== 0 && answer.readUInt16BE(6) > 0;
    // The record's name as it was asked for, its type, class (with or without the flag of who owns it), 4 bytes of data.
    const wanted = Buffer.concat(labels);
    const place = isAnswer ? answer.indexOf(wanted, 12) : -1;
    const data = place + wanted.length + 11;
    if (place >= 0 && answer.length >= data + 4) found = { address: [...answer.subarray(data, data + 4)].join('.'), from: address };
  });
  await new Promise((bound) => socket.bind(5353, bound));
  socket.addMembership('224.0.0.251', own);
  socket.setMulticastInterface(own);
  try {
    return await waitFor(`an answer to who is ${name}`, async () => {
      if (!found) await new Promise((sent) => socket.send(query, 5353, '224.0.0.251', sent));
      await new Promise((resume) => setTimeout(resume, 500));
      return found;
    }, SLOW);
  } finally {
    socket.close();
  }
}

// ---- what is on the card ----

async function onCard(name) {
  await run('mcopy', ['-n', '-o', '-i', `${at('card.img')}@@1M`, `::${name}`, at(name)]);
  return readFileSync(at(name), 'utf8');
}

// ---- the box from inside ----

const SSH = ['-i', at('key'), '-o', 'StrictHostKeyChecking=accept-new', '-o', `UserKnownHostsFile=${at('known_hosts')}`, '-o', 'BatchMode=yes'];

/** A command on the box, as whoever has put a key on the card; all that it says, and how it ended. */
async function ssh(command) {
  const done = await run('ssh', [...SSH, `root@${ADDRESS}`, command], { timeout: SLOW.deadlineMs }).catch((error) => error);
  if (done.stdout === undefined || done.code === 255 || done.killed) throw new Error(`${command}: ${done.stderr ?? done}`);
  return { text: done.stdout + done.stderr, code: done.code ?? 0 };
}

async function does(command) {
  const { text, code } = await ssh(command);
  assert.equal(code, 0, `${command} ended with ${code}: ${text}`);
  return text;
}

// ---- people ----

/** A phone with an ear and a voice: beeps, since steady tones are taken for noise. */
async function phone(authority, hz) {
  const voice = at(`${hz}.wav`);
  writeFileSync(voice, wavOf(joined(Array.from({ length: 10 }, () => [tone(hz, 0.3), tone(hz, 0.2, 0)]).flat())));
  const options = { env: { ...process.env, HOME: homeThatTrusts(authority ? [authority] : []) } };
  return Browser.launch({ ...options, extra: [`--use-file-for-fake-audio-capture=${voice}`, `--host-resolver-rules=MAP ${NAME} ${ADDRESS}`] });
}

const picture = async (page, name) => {
  await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
  await page.screenshot({ path: at(`${name}.png`), fullPage: true });
};

async function walk() {
  const given = await step('the box gives an address to whoever is on its network', async () => {
    const got = await lease();
    assert.match(got.ip, /^192\.168\.77\.\d+$/);
    assert.notEqual(got.ip, ADDRESS);
    assert.equal(got.router, undefined, 'phones keep the internet that they have elsewhere');
    return got.ip;
  });
  if (!given) return;

  await step(`${NAME} is found by multicast DNS`, async () => {
    assert.deepEqual(await resolve(NAME, given), { address: ADDRESS, from: ADDRESS });
  });

  const stranger = await phone(null, 300);
  const opened = await step('a phone that trusts nothing yet is warned, goes on to /trust and gets the certificate', async () => {
    const page = await stranger.blank(null);
    await waitFor('the box to answer', async () => {
      const why = await page.goto(`https://${ADDRESS}:8443/trust`).then(() => 'no warning', (error) => error.message);
      if (!/ERR_CERT_AUTHORITY_INVALID/.test(why)) throw new Error(why);
      return true;
    }, BOOT);
    const careless = await stranger.blank(null, { ignoreHTTPSErrors: true });
    await careless.goto(`https://${ADDRESS}:8443/`);
    await picture(careless, 'trust');
    const got = await careless.evaluate(async () => (await fetch(document.querySelector('a.button').href)).text());
    writeFileSync(at('crosspatch.crt'), got);
    const fingerprint = await careless.locator('#fingerprint').innerText();
    assert.equal(new X509Certificate(got).fingerprint256, fingerprint);
    return fingerprint;
  });
  await stranger.close();
  if (!opened) return;

  await step('the card says what to compare', async () => {
    for (const name of ['crosspatch-applied.txt', 'crosspatch-links.txt']) assert.ok((await onCard(name)).includes(opened), name);
  });
  const links = await step('the card has a link for everybody', async () => {
    const text = await onCard('crosspatch-links.txt');
    const found = Object.fromEntries([...text.matchAll(/^(\w+):\r?\n(https:\S+)/gm)].map(([, name, link]) => [name.toLowerCase(), new URL(link)]));
    assert.deepEqual(Object.keys(found).sort(), ['ada', 'anna', 'ben', 'carla']);
    return found;
  });
  if (!links) return;

  const authority = at('crosspatch.crt');
  const hall = await phone(authority, HZ.ben);
  const desk = await phone(authority, HZ.anna);
  /** Opens a link as it was handed on. */
  const open = (browser, id, name) => browser.talkPage(
    { url: links[id].origin, token: () => links[id].hash.replace('#token=', '') },
    { user: id, name, channels: ['ops', 'medical'] }, null, SLOW,
  );
  const people = await step('three people open their links', async () => {
    const all = [await open(hall, 'ben', 'Ben'), await open(hall, 'carla', 'Carla'), await open(desk, 'anna', 'Anna')];
    for (const { page } of all) assert.equal(await page.evaluate(() => window.isSecureContext), true);
    return all;
  });
  if (!people) return;
  const [ben, carla, anna] = people;

  await step('one talks, the others hear him', async () => {
    await ben.press();
    await ben.granted();
    for (const other of [carla, anna]) {
      await other.shows('.speaker', 'Ben');
      const { packetsReceived, totalAudioEnergy } = await other.hears('ops', await other.inbound(), 50);
      await other.hearsTone(HZ.ben);
      console.error(`        ${other.name}: ${packetsReceived} packets, energy ${totalAudioEnergy.toFixed(4)}`);
    }
    await picture(ben.page, 'talk');
  });

  await step('a dispatcher cuts him off, and he is told by whom', async () => {
    const since = await carla.inbound();
    await anna.pressPriority();
    await anna.granted();
    await ben.shows('.message', 'Dispatch Anna has priority');
    await carla.hears('ops', since, 50);
    await carla.hearsTone(HZ.anna);
    await ben.hears('ops', { packetsReceived: 0, totalAudioEnergy: 0 }, 50);
    await ben.hearsTone(HZ.anna);
    await picture(ben.page, 'talk-cut');
    await picture(anna.page, 'talk-dispatch');
    await ben.release();
    await anna.release();
    for (const each of people) await each.idle();
  });

  await step('it answers by its name too, with a certificate for it', async () => {
    const page = await hall.blank(null);
    await page.goto(`https://${NAME}:8443/talk${links.carla.hash}`);
    assert.equal(await page.evaluate(() => window.isSecureContext), true);
  });

  await step('whoever has a key on the card gets in, and the doctor says what there is', async () => {
    const { text, code } = await ssh('crosspatch doctor');
    writeFileSync(at('doctor.txt'), text);
    assert.ok([0, 1].includes(code), text);
    for (const well of ['configuration', 'network', 'ports', 'certificate', 'audit', 'disk']) assert.match(text, new RegExp(`^pass +${well} `, 'm'));
    assert.match(text, new RegExp(`people open https://${ADDRESS.replaceAll('.', '\\.')}:8443`));
  });

  // The desk of the example has a sound card, and this box has none.
  await step('the log is readable while a sound card is missing', async () => {
    const log = await does('journalctl --unit crosspatch --boot --output cat');
    assert.match(log, /sound device 'default' is not there/);
    assert.ok(!log.includes('ALSA lib') && log.split('\n').length < 100, log.slice(-2000));
  });

  await step('the audit has both bursts', async () => {
    const text = await does('crosspatch audit query --state-dir /var/lib/crosspatch --kind ptt.start,priority_ptt.start --format jsonl');
    assert.deepEqual(text.trim().split('\n').map((row) => JSON.parse(row).actor ?? JSON.parse(row).user), ['ben', 'anna'], text);
  });

  await step('the doctor is a page for an administrator', async () => {
    const page = await hall.blank(null);
    await page.goto(`https://${ADDRESS}:8443/doctor${links.ada.hash}`);
    const outcome = await waitFor('the checks', () => page.evaluate(() => document.querySelector('[data-check=network]')?.dataset.outcome), SLOW);
    await picture(page, 'doctor');
    assert.equal(outcome, 'pass');
  });

  await step('the front panel comes through SSH', async () => {
    const tunnel = spawn('ssh', [...SSH, '-N', '-L', '8080:127.0.0.1:8080', '-o', 'ExitOnForwardFailure=yes', `root@${ADDRESS}`], { stdio: 'inherit' });
    try {
      const page = await hall.blank(null);
      await waitFor('the tunnel', () => page.goto('http://127.0.0.1:8080/'), SLOW);
      await waitFor('the panel to know the event', async () => (await page.locator('#event').innerText()) !== '', SLOW);
      await picture(page, 'panel');
      assert.equal(await page.locator('#fingerprint').textContent(), opened);
    } finally {
      tunnel.kill();
    }
  });

  await step('a support bundle and a backup can be fetched, and the bundle has no secret', async () => {
    await does('crosspatch support-bundle --output bundle.tar.gz && crosspatch backup gate.backup');
    await run('scp', [...SSH, `root@${ADDRESS}:bundle.tar.gz`, `root@${ADDRESS}:gate.backup`, dir]);
    const { stdout } = await run('tar', ['xzOf', at('bundle.tar.gz')], { maxBuffer: 64e6 });
    assert.match(stdout, /crosspatch doctor/);
    const secret = (await does('cat /var/lib/crosspatch/token.secret')).trim();
    assert.ok(secret.length > 20 && !stdout.includes(secret));
    for (const link of Object.values(links)) assert.ok(!stdout.includes(link.hash.slice(-40)), 'a link is in the bundle');
  });

  for (const each of people) each.assertNoTroubles();
  await Promise.all([hall.close(), desk.close()]);
  await step('the box switches itself off', async () => {
    await ssh('systemctl poweroff').catch(() => {});
    await waitFor('the emulator to end', () => { try { process.kill(Number(box), 0); return false; } catch { return true; } }, SLOW);
  });
}

await step('nothing unforeseen happens', walk);
writeFileSync(at('counted'), `${passed} ${failed}\n`);
process.exit(failed === 0 ? 0 : 1);
