// Talk pages in Chromium, each in a browser context of its own, so that no page hides another.
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';
import { waitFor } from './wait.mjs';

export const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

const ARGUMENTS = [
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
  '--autoplay-policy=no-user-gesture-required',
  // Chromium refuses its sandbox to root.
  ...(process.getuid() === 0 ? ['--no-sandbox'] : []),
];

/** How long a piece of sound the ear judges at once: 1024 samples at 48 kHz. */
export const EAR_WINDOW_MS = 1024 / 48;
/** How often it judges: once a frame. */
export const EAR_FRAME_MS = 1000 / 60;

export class Browser {
  #chromium;

  /** Starts Chromium, with `extra` arguments; the other options are playwright's. */
  static async launch({ extra = [], ...options } = {}) {
    const browser = new Browser();
    const args = [...ARGUMENTS, ...extra];
    browser.#chromium = await chromium.launch({ executablePath: CHROMIUM, headless: true, args, ...options });
    return browser;
  }

  get version() {
    return this.#chromium.version();
  }

  /** An empty page with the tools of `instruments`; its microphone is a tone of `hz`, or with null that of the browser. */
  async blank(hz, options = {}) {
    const context = await this.#chromium.newContext({ viewport: { width: 1000, height: 800 }, ...options });
    const page = await context.newPage();
    await page.addInitScript(instruments, hz);
    return page;
  }

  /**
   * Opens the talk page of a participant and returns when it has joined all of its channels. The microphone is a tone
   * of `hz`, or with null that of the browser. `of` is as for `Gateway.token`.
   */
  async talkPage(gateway, of, hz = 400, patience = {}) {
    const page = await this.blank(hz);
    const talkPage = new TalkPage(page, of);
    const token = await gateway.token(of);
    await page.goto(`${gateway.url}/talk#token=${token}`);
    for (const channel of of.channels ?? ['ops']) {
      await talkPage.until(`${channel} to be joined`, (state, id) => state.connected && state.channels[id]?.joined, channel, patience);
    }
    return talkPage;
  }

  async close() {
    await this.#chromium.close();
  }
}

export class TalkPage {
  #troubles = [];

  constructor(page, { user, name }) {
    this.page = page;
    this.user = user;
    this.name = name;
    page.on('pageerror', (error) => this.#troubles.push(error.message));
  }

  /** Fails if a script of the page threw. */
  assertNoTroubles() {
    assert.deepEqual(this.#troubles, [], `scripts of ${this.name}'s page failed`);
  }

  /** Waits until `holds(state, argument)`, run in the page on `crosspatch.state`, gives something truthy. */
  async until(what, holds, argument, options) {
    const source = `(argument) => (${holds})(window.crosspatch.state, argument)`;
    return waitFor(`${what} on ${this.name}'s page`, () => this.page.evaluate(`(${source})(${JSON.stringify(argument ?? null)})`), options);
  }

  /** What the page knows of a channel. */
  channel(id = 'ops') {
    return this.page.evaluate((id) => window.crosspatch.state.channels[id], id);
  }

  /** Puts the mouse on the talk button and holds it down. */
  async press(id = 'ops', button = '.ptt') {
    await this.page.locator(`[data-channel="${id}"] ${button}`).hover();
    await this.page.mouse.down();
  }

  pressPriority(id = 'ops') {
    return this.press(id, '.priority');
  }

  release() {
    return this.page.mouse.up();
  }

  granted(id = 'ops') {
    return this.until(`the floor of ${id}`, (state, id) => state.channels[id].granted, id);
  }

  idle(id = 'ops') {
    return this.until(`nobody to talk on ${id}`, (state, id) => state.channels[id].speaker === null, id);
  }

  /** Waits until `text`, a string or a regular expression, stands in a part of the channel's card. */
  async shows(part, text, id = 'ops') {
    const place = this.page.locator(`[data-channel="${id}"] ${part}`);
    const pattern = typeof text === 'string' ? new RegExp(escape(text)) : text;
    return waitFor(`${this.name}'s page to show ${pattern} in ${part} of ${id}`, async () => {
      const shown = await place.innerText();
      if (!pattern.test(shown)) throw new Error(`"${shown}"`);
      return true;
    });
  }

  inbound(id = 'ops') {
    return this.page.evaluate(async (id) => ({ ...(await window.crosspatch.inboundStats(id)), at: performance.now() }), id);
  }

  /** Waits until more packets have come in than `since` says, and energy with them. */
  hears(id = 'ops', since = { packetsReceived: 0, totalAudioEnergy: 0 }, packets = 25) {
    return waitFor(`${this.name} to hear ${packets} packets on ${id}`, async () => {
      const now = await this.inbound(id);
      const enough = now.packetsReceived - since.packetsReceived >= packets && now.totalAudioEnergy > since.totalAudioEnergy;
      if (!enough) throw new Error(JSON.stringify(now));
      return now;
    });
  }

  /** Waits until nothing comes in any more. Browsers answer with figures up to 50 ms old, so two far enough apart must agree. */
  quiet(id = 'ops') {
    let last;
    return waitFor(`silence for ${this.name} on ${id}`, async () => {
      const now = await this.inbound(id);
      if (last?.packetsReceived !== now.packetsReceived) last = now;
      return now.at - last.at >= 200 && now;
    });
  }

  /** Waits until the strongest tone of a channel is the one of `hz`. */
  hearsTone(hz, id = 'ops') {
    return waitFor(`${this.name} to hear ${hz} Hz on ${id}`, async () => {
      const tone = await this.page.evaluate((id) => window.crosspatch.tone(id), id);
      if (Math.abs(tone.hz - hz) > 30 || !(tone.db > -70)) throw new Error(JSON.stringify(tone));
      return tone;
    });
  }

  /** Begins to write down, once a frame, which of two tones is in what the page receives. */
  listen(hzs) {
    return this.page.evaluate((hzs) => window.testing.listen(hzs), hzs);
  }

  /** What was heard so far: `[{ at, hz }]`, `at` in ms since 1970 and `hz` null in silence. */
  heard() {
    return this.page.evaluate(() => window.testing.heard);
  }

  /** The messages that crossed the page's WebSocket: `[{ at, out, message }]`. */
  wire() {
    return this.page.evaluate(() => window.testing.wire);
  }

  /** The last request of a type together with its reply, `{ sent, reply }`; waits for both. */
  exchange(type) {
    return waitFor(`the reply to ${this.name}'s ${type}`, async () => {
      const wire = await this.wire();
      const sent = wire.filter((entry) => entry.out && entry.message.type === type).at(-1);
      const reply = sent && wire.find((entry) => !entry.out && entry.message.id === sent.message.id);
      return reply && { sent, reply };
    });
  }
}

const escape = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

/** Runs in every page before its own scripts. */
function instruments(hz) {
  const wire = [];
  const tracks = [];
  const heard = [];
  window.testing = { wire, tracks, heard };

  // A tone instead of a microphone. The parts stay referenced, or the browser may collect them.
  if (hz !== null) window.crosspatchTrack = () => {
    const context = new AudioContext({ sampleRate: 48_000 });
    const oscillator = new OscillatorNode(context, { frequency: hz });
    const volume = new GainNode(context, { gain: 0.5 });
    const output = context.createMediaStreamDestination();
    oscillator.connect(volume).connect(output);
    oscillator.start();
    window.testing.microphone = { context, oscillator, volume, output };
    return output.stream.getAudioTracks()[0];
  };

  // Stamps every message where it crosses the page's edge, ahead of the page's own code.
  const note = (out, text) => typeof text === 'string' && wire.push({ at: Date.now(), out, message: JSON.parse(text) });
  window.WebSocket = class extends WebSocket {
    constructor(...parameters) {
      super(...parameters);
      this.addEventListener('message', ({ data }) => note(false, data));
    }

    send(data) {
      note(true, data);
      super.send(data);
    }
  };

  // An ear with a window much shorter than a page's own analyser needs for its display.
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...parameters) {
      super(...parameters);
      this.addEventListener('track', ({ track }) => tracks.push(track));
    }
  };
  window.testing.listen = async (hzs) => {
    const context = new AudioContext({ sampleRate: 48_000 });
    await context.resume();
    const ears = tracks.map((track) => {
      const analyser = new AnalyserNode(context, { fftSize: 1024 });
      const source = context.createMediaStreamSource(new MediaStream([track]));
      source.connect(analyser);
      return { analyser, source };
    });
    window.testing.ears = ears;
    const samples = new Float32Array(1024);
    // Goertzel's algorithm: the amplitude of one frequency, without the coarse bins of a short FFT.
    const amplitude = (hz) => {
      const step = 2 * Math.cos((2 * Math.PI * hz) / context.sampleRate);
      let [one, two] = [0, 0];
      for (const sample of samples) [one, two] = [sample + step * one - two, one];
      return (2 * Math.sqrt(Math.max(0, one * one + two * two - step * one * two))) / samples.length;
    };
    const judge = () => {
      for (const { analyser } of ears) {
        analyser.getFloatTimeDomainData(samples);
        const found = hzs.map((hz) => ({ hz, level: amplitude(hz) })).sort((a, b) => b.level - a.level)[0];
        heard.push({ at: Date.now(), hz: found.level > 0.01 ? found.hz : null });
      }
      requestAnimationFrame(judge);
    };
    judge();
  };
}
