// The microphone, the loudspeaker and the measuring of both.
import { FLOOR_DB, levelOf, strongestTone } from './meter.js';

const MICROPHONE = { audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true } };

export class Sound {
  blocked = false; // the browser wants a click before it lets us be heard
  #context = new AudioContext();
  #microphone = null;
  #outputs = new Map(); // channel id -> { audio, analyser }
  #changed;

  constructor(changed) {
    this.#changed = changed;
    this.#context.onstatechange = () => this.#check();
    setTimeout(() => this.#check(), 500); // a context that may start does so within a moment
  }

  /** Asks for the microphone; rejects when it is refused or missing. */
  async openMicrophone() {
    const injected = window.crosspatchTrack;
    const track = injected
      ? await (typeof injected === 'function' ? injected() : injected)
      : (await requireDevices().getUserMedia(MICROPHONE)).getAudioTracks()[0];
    this.#microphone = this.#analyse(track);
    return track;
  }

  hear(channelId, track) {
    this.silence(channelId);
    const audio = new Audio();
    audio.srcObject = new MediaStream([track]);
    this.#outputs.set(channelId, { audio, analyser: this.#analyse(track) });
    this.#play(audio);
  }

  silence(channelId) {
    const output = this.#outputs.get(channelId);
    if (!output) return;
    output.audio.srcObject = null;
    this.#outputs.delete(channelId);
  }

  /** After a click: makes everything audible that the browser held back. */
  async unblock() {
    await this.#context.resume();
    this.blocked = false;
    for (const { audio } of this.#outputs.values()) this.#play(audio);
    this.#changed();
  }

  microphoneLevel() {
    return this.#microphone ? levelOf(this.#microphone) : null;
  }

  level(channelId) {
    const output = this.#outputs.get(channelId);
    return output ? levelOf(output.analyser) : null;
  }

  tone(channelId) {
    const output = this.#outputs.get(channelId);
    return output ? strongestTone(output.analyser) : { hz: 0, db: FLOOR_DB };
  }

  #play(audio) {
    audio.play().catch((error) => {
      if (error.name !== 'NotAllowedError') return; // replaced or stopped meanwhile
      this.blocked = true;
      this.#changed();
    });
  }

  #check() {
    this.blocked = this.#context.state !== 'running';
    this.#changed();
  }

  #analyse(track) {
    const analyser = new AnalyserNode(this.#context, { fftSize: 8192, smoothingTimeConstant: 0 });
    this.#context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
    return analyser;
  }
}

function requireDevices() {
  if (!navigator.mediaDevices) throw new Error('the browser gives it only to pages opened over https');
  return navigator.mediaDevices;
}
