// Does the harness itself work? Needs no gateway.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { Browser } from './page.mjs';
import { waitFor, within } from './wait.mjs';

let browser;
let server;
let address;

before(async () => {
  server = createServer((_, answer) => {
    answer.setHeader('content-type', 'text/html');
    answer.end('<!doctype html><title>smoke</title>');
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  address = `http://127.0.0.1:${server.address().port}/`;
  browser = await Browser.launch();
});

after(async () => {
  await browser?.close();
  server?.close();
});

test('Chromium starts, and every page draws frames while others are open', async () => {
  assert.match(browser.version, /^\d+\./);
  const pages = await Promise.all([400, 600, 800].map((hz) => browser.blank(hz)));
  await Promise.all(pages.map((page) => page.goto(address)));
  const frames = (page) => page.evaluate(async () => {
    const start = performance.now();
    for (let frame = 0; frame < 20; frame++) await new Promise(requestAnimationFrame);
    return performance.now() - start;
  });
  for (const tookMs of await Promise.all(pages.map(frames))) assert.ok(tookMs < 2000, `20 frames took ${tookMs} ms`);
  await Promise.all(pages.map((page) => page.context().close()));
});

test('a tone that one page sends is heard as that tone by the ear', async () => {
  const page = await browser.blank(800);
  await page.goto(address);
  await page.evaluate(async () => {
    const [from, to] = [new RTCPeerConnection(), new RTCPeerConnection()];
    window.connections = [from, to];
    from.onicecandidate = ({ candidate }) => to.addIceCandidate(candidate);
    to.onicecandidate = ({ candidate }) => from.addIceCandidate(candidate);
    // Chromium decodes a remote track only while something plays it.
    to.ontrack = ({ streams }) => {
      window.audio = new Audio();
      window.audio.srcObject = streams[0];
      window.audio.play();
    };
    const track = window.crosspatchTrack();
    from.addTrack(track, new MediaStream([track]));
    await from.setLocalDescription();
    await to.setRemoteDescription(from.localDescription);
    await to.setLocalDescription();
    await from.setRemoteDescription(to.localDescription);
    await window.testing.listen([400, 800]);
  });
  await waitFor('800 Hz at the ear', () => page.evaluate(() => window.testing.heard.at(-1)?.hz === 800));
  // Silence must be told from a tone, and one tone from the other.
  await page.evaluate(() => { window.testing.microphone.volume.gain.value = 0; });
  await waitFor('silence at the ear', () => page.evaluate(() => window.testing.heard.at(-1)?.hz === null));
  await page.evaluate(() => {
    const { volume, oscillator } = window.testing.microphone;
    oscillator.frequency.value = 400;
    volume.gain.value = 0.5;
  });
  await waitFor('400 Hz at the ear', () => page.evaluate(() => window.testing.heard.at(-1)?.hz === 400));
  await page.context().close();
});

test('a page without a test tone gets a microphone without a question', async () => {
  const page = await browser.blank(400);
  await page.goto(address);
  const asked = page.evaluate(async () => (await navigator.mediaDevices.getUserMedia({ audio: true })).getAudioTracks().length);
  assert.equal(await within('a microphone', asked), 1);
  await page.context().close();
});

test('the sqlite3 program answers in JSON', () => {
  const answer = execFileSync('sqlite3', ['-json', ':memory:', 'SELECT 1 AS one, NULL AS none'], { encoding: 'utf8' });
  assert.deepEqual(JSON.parse(answer), [{ one: 1, none: null }]);
});
