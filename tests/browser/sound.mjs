// Sound cards for tests: the null sinks of a sound server of our own, which the gateway reaches through ALSA.
//
// Every stamp here is in ms of CLOCK_MONOTONIC, the clock that the audit's `mono_ns` is of.
import { execFile, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { waitFor, within } from './wait.mjs';

const run = promisify(execFile);

export const RATE = 48_000;
export const SAMPLES_PER_MS = RATE / 1000;
/** How long a step of an envelope is. */
export const STEP_MS = 20;
/** The sound server is asked to move sound in pieces no longer than this, so a stamp may be off by as much. */
export const SERVER_MS = 20;
/** Real human speech: Debian's `alsa-utils`. */
const SPEECH = ['Front_Center', 'Rear_Left', 'Side_Right', 'Front_Left'].map((name) => `/usr/share/sounds/alsa/${name}.wav`);

export const now = () => Number(process.hrtime.bigint()) / 1e6;

export class SoundServer {
  #child;
  #players = new Set();
  #recordings = [];

  /** Starts a sound server with a sink of each name. ALSA knows each: to capture what is played into it, and to play to it. */
  static async start(...names) {
    const server = new SoundServer();
    server.dir = mkdtempSync(path.join(tmpdir(), 'crosspatch-sound-'));
    server.names = names;
    mkdirSync(path.join(server.dir, 'run'), { mode: 0o700 });
    server.env = { ...process.env, HOME: server.dir, XDG_RUNTIME_DIR: path.join(server.dir, 'run') };
    for (const name of ['PULSE_SERVER', 'PULSE_RUNTIME_PATH', 'XDG_CONFIG_HOME', 'ALSA_CONFIG_PATH', 'DISPLAY']) delete server.env[name];
    // A capture device and a playback device of the same name: one is the sink's monitor, the other the sink.
    const pcm = (name) => `pcm.${name} {
  type asym
  capture.pcm { type pulse device "${name}.monitor" }
  playback.pcm { type pulse device "${name}" }
}\n`;
    writeFileSync(path.join(server.dir, '.asoundrc'), names.map(pcm).join(''));
    // Without `norewinds` an idle sink renders up to two seconds ahead and takes as long to hear that somebody plays.
    const sinks = names.map((name) => `module-null-sink sink_name=${name} rate=${RATE} channels=1 norewinds=1`);
    const modules = ['module-native-protocol-unix', ...sinks].flatMap((module) => ['-L', module]);
    const options = ['-n', '--daemonize=no', '--use-pid-file=no', '--exit-idle-time=-1', '--realtime=no', '--high-priority=no'];
    server.#child = spawn('pulseaudio', [...options, ...modules], { env: server.env, stdio: 'ignore' });
    const orphaned = () => server.#child.kill('SIGKILL');
    process.once('exit', orphaned);
    server.#child.once('exit', () => process.off('exit', orphaned));
    await waitFor('the sound server to have its sinks', async () => {
      const { stdout } = await run('pactl', ['list', 'short', 'sinks'], { env: server.env });
      return names.every((name) => stdout.includes(name));
    });
    return server;
  }

  /** Plays a WAV file into a sink. The promise `ended` is kept when it has sounded; `stop()` ends it before. */
  play(sink, file) {
    const child = spawn('paplay', [`--device=${sink}`, '--latency-msec=20', file], { env: this.env, stdio: 'ignore' });
    this.#players.add(child);
    const ended = new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code, signal) => {
        this.#players.delete(child);
        if (code === 0 || signal) resolve();
        else reject(new Error(`paplay ended with ${code}`));
      });
    });
    return { ended, stop: () => (child.kill('SIGTERM'), ended) };
  }

  /** Writes a WAV file of these samples (−1 to 1) and returns its path. */
  wav(name, samples) {
    return this.file(name, wavOf(samples));
  }

  /** Writes a file beside the others, to be removed with them, and returns its path. */
  file(name, content) {
    const file = path.join(this.dir, name);
    writeFileSync(file, content);
    return file;
  }

  /** Begins to record what is played into a sink; returns when sound (be it silence) comes in. */
  async record(sink) {
    const recording = new Recording(sink, this.env);
    this.#recordings.push(recording);
    await waitFor(`sound from ${sink}`, async () => recording.length > 0);
    return recording;
  }

  async stop() {
    for (const player of this.#players) player.kill('SIGKILL');
    for (const recording of this.#recordings) recording.stop();
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill('SIGTERM');
      await within('the sound server to end', ended).catch(() => this.#child.kill('SIGKILL'));
    }
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Sound with the time of its first sample. */
export class Sound {
  constructor(samples, startMs) {
    this.samples = samples;
    this.startMs = startMs;
  }

  get endMs() {
    return this.startMs + this.samples.length / SAMPLES_PER_MS;
  }

  /** The part between two times. */
  between(fromMs, untilMs = Infinity) {
    const from = Math.max(0, Math.round((fromMs - this.startMs) * SAMPLES_PER_MS));
    const until = Math.min(this.samples.length, Math.round((untilMs - this.startMs) * SAMPLES_PER_MS));
    return new Sound(this.samples.subarray(from, Math.max(from, until)), this.startMs + from / SAMPLES_PER_MS);
  }

  /** The RMS of each step. */
  envelope() {
    const step = STEP_MS * SAMPLES_PER_MS;
    const count = Math.floor(this.samples.length / step);
    return Float64Array.from({ length: count }, (_, index) => rms(this.samples.subarray(index * step, (index + 1) * step)));
  }

  /**
   * The times between which a tone sounds, first to last; null if it is never louder than `audible`. A window of 20 ms
   * slides over the sound: where half of it is filled, the tone begins or ends, to within 5 ms.
   */
  toneSpan(hz, audible = 0.05) {
    const [window, hop] = [20 * SAMPLES_PER_MS, 5 * SAMPLES_PER_MS];
    const levels = [];
    for (let at = 0; at + window <= this.samples.length; at += hop) {
      levels.push(amplitude(this.samples.subarray(at, at + window), hz));
    }
    const loudest = levels.reduce((most, level) => Math.max(most, level), 0);
    if (loudest < audible) return null;
    const first = levels.findIndex((level) => level > loudest / 2);
    const last = levels.findLastIndex((level) => level > loudest / 2);
    const middle = (index) => this.startMs + (index * hop + window / 2) / SAMPLES_PER_MS;
    return { from: middle(first), until: middle(last), level: loudest };
  }
}

class Recording {
  #child;
  #chunks = [];
  #odd = Buffer.alloc(0);
  /** The earliest that any sample came in, carried back to the first: a late chunk does not move it. */
  #startMs = Infinity;
  length = 0;

  constructor(sink, env) {
    const format = ['--raw', '--format=s16le', `--rate=${RATE}`, '--channels=1', `--latency-msec=${SERVER_MS}`];
    this.#child = spawn('parec', [`--device=${sink}.monitor`, ...format], { env, stdio: ['ignore', 'pipe', 'ignore'] });
    this.#child.stdout.on('data', (data) => {
      const bytes = Buffer.concat([this.#odd, data]);
      const whole = bytes.length & ~1;
      this.#odd = bytes.subarray(whole);
      this.#chunks.push(bytes.subarray(0, whole));
      this.length += whole / 2;
      this.#startMs = Math.min(this.#startMs, now() - this.length / SAMPLES_PER_MS);
    });
  }

  /** All that was recorded so far. */
  get sound() {
    return soundOf(Buffer.concat(this.#chunks), this.#startMs);
  }

  /** Waits until the recording has got to a time. */
  async reaches(ms) {
    await waitFor('the recording to go on', async () => this.#startMs + this.length / SAMPLES_PER_MS > ms);
    return this.sound;
  }

  stop() {
    this.#child.kill('SIGTERM');
  }
}

/**
 * Begins to record all that a page receives, in an audio worklet, so that a busy page loses nothing. Returns an object
 * whose `sound()` gives a `Sound`.
 */
export async function listen(page) {
  const module = `registerProcessor('recorder', class extends AudioWorkletProcessor {
    constructor() {
      super();
      this.samples = new Int16Array(${RATE / 50});
      this.filled = 0;
    }
    process([[mono]]) {
      for (let i = 0; i < 128; i += 1) {
        this.samples[this.filled] = Math.round(32767 * Math.max(-1, Math.min(1, mono?.[i] ?? 0)));
        this.filled += 1;
        if (this.filled === this.samples.length) {
          this.port.postMessage(this.samples);
          this.filled = 0;
        }
      }
      return true;
    }
  });`;
  await page.evaluate(async ({ module, rate }) => {
    const context = new AudioContext({ sampleRate: rate });
    await context.audioWorklet.addModule(URL.createObjectURL(new Blob([module], { type: 'text/javascript' })));
    await context.resume();
    const options = { numberOfOutputs: 1, channelCount: 1, channelCountMode: 'explicit' };
    const node = new AudioWorkletNode(context, 'recorder', options);
    const sources = window.testing.tracks.map((track) => context.createMediaStreamSource(new MediaStream([track])));
    for (const source of sources) source.connect(node);
    node.connect(context.destination); // silent, but what leads nowhere may not run
    const recorder = { context, node, sources, chunks: [], length: 0, start: Infinity };
    window.testing.recorder = recorder;
    node.port.onmessage = ({ data }) => {
      recorder.chunks.push(data);
      recorder.length += data.length;
      const at = performance.timeOrigin + performance.now();
      recorder.start = Math.min(recorder.start, at - (recorder.length / rate) * 1000);
    };
  }, { module, rate: RATE });
  await waitFor('the page to record', () => page.evaluate(() => window.testing.recorder.length > 0));
  const sinceEpoch = performance.timeOrigin + performance.now() - now();
  return {
    async sound() {
      const { base64, start } = await page.evaluate(async () => {
        const { chunks, start } = window.testing.recorder;
        const address = await new Promise((resolve) => {
          const reader = new FileReader();
          reader.onload = () => resolve(reader.result);
          reader.readAsDataURL(new Blob(chunks));
        });
        return { base64: address.slice(address.indexOf(',') + 1), start };
      });
      return soundOf(Buffer.from(base64, 'base64'), start - sinceEpoch);
    },

    /** Waits until the page has recorded up to a time. */
    async reaches(ms) {
      await waitFor('the page to record on', () => page.evaluate((until) => {
        const { start, length } = window.testing.recorder;
        return start + length / 48 > until;
      }, ms + sinceEpoch));
      return this.sound();
    },
  };
}

function soundOf(bytes, startMs) {
  const samples = new Float32Array(bytes.length >> 1);
  for (let i = 0; i < samples.length; i += 1) samples[i] = bytes.readInt16LE(2 * i) / 32_768;
  return new Sound(samples, startMs);
}

function rms(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return Math.sqrt(sum / samples.length);
}

/** Goertzel's algorithm: the amplitude of one frequency. */
function amplitude(samples, hz) {
  const step = 2 * Math.cos((2 * Math.PI * hz) / RATE);
  let [one, two] = [0, 0];
  for (const sample of samples) [one, two] = [sample + step * one - two, one];
  return (2 * Math.sqrt(Math.max(0, one * one + two * two - step * one * two))) / samples.length;
}

/** Human speech, word by word: pieces of some 1.4 seconds, each with its natural pauses around it. */
export function speech() {
  return SPEECH.map((file) => samplesOf(readFileSync(file)));
}

export function joined(parts) {
  const whole = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export function tone(hz, seconds, level = 0.25) {
  return Float32Array.from({ length: Math.round(seconds * RATE) }, (_, i) => level * Math.sin((2 * Math.PI * hz * i) / RATE));
}

/** The samples of a WAV file of 16 bit, mono, 48 kHz. */
function samplesOf(wav) {
  for (let at = 12; at + 8 <= wav.length; at += 8 + wav.readUInt32LE(at + 4)) {
    if (wav.toString('latin1', at, at + 4) === 'data') {
      return soundOf(wav.subarray(at + 8, at + 8 + wav.readUInt32LE(at + 4)), 0).samples;
    }
  }
  throw new Error('a WAV file without data');
}

/** A WAV file of these samples. */
export function wavOf(samples) {
  const wav = Buffer.alloc(44 + 2 * samples.length);
  wav.write('RIFF', 0);
  wav.writeUInt32LE(36 + 2 * samples.length, 4);
  wav.write('WAVEfmt ', 8);
  wav.writeUInt32LE(16, 16);
  wav.writeUInt16LE(1, 20); // PCM
  wav.writeUInt16LE(1, 22); // mono
  wav.writeUInt32LE(RATE, 24);
  wav.writeUInt32LE(2 * RATE, 28);
  wav.writeUInt16LE(2, 32);
  wav.writeUInt16LE(16, 34);
  wav.write('data', 36);
  wav.writeUInt32LE(2 * samples.length, 40);
  samples.forEach((sample, i) => wav.writeInt16LE(Math.round(32_767 * sample), 44 + 2 * i));
  return wav;
}

/**
 * How alike a piece is to some stretch of what was heard, judged by the envelopes alone, whatever the level: Pearson's
 * correlation where it is best, and the time of that place. 1 is the same shape.
 */
export function likeness(piece, heard) {
  const pattern = new Sound(piece, 0).envelope();
  const envelope = heard.envelope();
  let best = { correlation: -1, at: NaN };
  for (let lag = 0; lag + pattern.length <= envelope.length; lag += 1) {
    const correlation = pearson(pattern, envelope.subarray(lag, lag + pattern.length));
    if (correlation > best.correlation) best = { correlation, at: heard.startMs + lag * STEP_MS };
  }
  return best;
}

function pearson(a, b) {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [meanA, meanB] = [mean(a), mean(b)];
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i += 1) {
    const [x, y] = [a[i] - meanA, b[i] - meanB];
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return aa > 0 && bb > 0 ? ab / Math.sqrt(aa * bb) : 0;
}

/**
 * Watches a line of the gateway's board as often as it answers. `changes()` tells each change as an interval
 * `{ active, after, before }`: it happened after the last look that saw the old level and before the first that saw the new one.
 */
export function watchLine(gateway, line) {
  const changes = [];
  let watching = true;
  const done = (async () => {
    let last = { active: undefined, at: 0 };
    while (watching) {
      const asked = now();
      const active = await gateway.isActive(line);
      if (last.active !== undefined && active !== last.active) changes.push({ active, after: last.at, before: now() });
      last = { active, at: asked };
      await new Promise((resume) => setTimeout(resume, 2));
    }
  })();
  done.catch(() => {}); // told by stop()
  return { changes, stop: () => ((watching = false), done) };
}
