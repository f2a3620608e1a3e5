// The emergency button: hold it for two seconds to go on air on every channel, keep holding to talk, let go to end.

export const HOLD_MS = 2000;

export class Emergency {
  phase = 'idle'; // idle, arming, starting, active, denied
  #page;
  #hold = null;

  /** `page` offers request, send, emergencyChannel, say and changed. */
  constructor(page) {
    this.#page = page;
  }

  press() {
    if (this.#hold) return;
    const { request, send, emergencyChannel, link } = this.#page;
    // One source is enough: the gateway brings it to every channel.
    const hold = { pressedAt: performance.now(), source: emergencyChannel(), link };
    this.#hold = hold;
    if (!hold.source) {
      this.#refuse(hold, 'Emergency needs a microphone and a joined channel');
      return;
    }
    this.#phase('arming');
    send(hold.source, 'emergency', true);
    request('emergency-broadcast-arm', { pressed: true }).catch((error) => this.#refuse(hold, error.message));
    this.#fireWhenHeld(hold);
  }

  release() {
    const hold = this.#hold;
    if (!hold) return;
    const phase = this.phase;
    this.#end(hold);
    this.#hold = null;
    this.#phase('idle');
    if (hold.link !== this.#page.link) return; // the connection it began on is gone, and the broadcast with it
    const { request, say } = this.#page;
    if (phase === 'starting' || phase === 'active') {
      say('Emergency broadcast ended');
      request('emergency-broadcast-stop', {}).catch((error) => say(error.message));
    } else if (hold.source) {
      request('emergency-broadcast-arm', { pressed: false }).catch(() => {});
      if (phase === 'arming') {
        const held = ((performance.now() - hold.pressedAt) / 1000).toFixed(1);
        say(`Emergency aborted: held for ${held} of ${HOLD_MS / 1000} seconds`);
      }
    }
  }

  /** The gateway ended the broadcast, or the connection is gone. Hold-to-talk needs a new press. */
  stopped(reason) {
    if (this.#hold) this.#refuse(this.#hold, reason);
  }

  #fireWhenHeld(hold) {
    const left = HOLD_MS - (performance.now() - hold.pressedAt);
    setTimeout(() => {
      if (this.#hold !== hold || this.phase !== 'arming') return;
      const heldMs = Math.floor(performance.now() - hold.pressedAt);
      if (heldMs < HOLD_MS) this.#fireWhenHeld(hold);
      else this.#fire(hold, heldMs);
    }, Math.max(1, left));
  }

  #fire(hold, holdDuration) {
    this.#phase('starting');
    this.#page.request('emergency-broadcast-start', { holdDuration }).then(
      (reply) => {
        if (this.#hold !== hold || this.phase !== 'starting') return;
        if (reply.success === false) {
          this.#refuse(hold, reply.message || `${reply.currentSpeakerName} already has an emergency broadcast`);
          return;
        }
        this.#phase('active');
        this.#page.say(onAir(reply));
      },
      (error) => this.#refuse(hold, error.message),
    );
  }

  #refuse(hold, message) {
    if (this.#hold !== hold || this.phase === 'denied') return;
    this.#end(hold);
    this.#phase('denied');
    this.#page.say(message);
  }

  #end(hold) {
    if (hold.source) this.#page.send(hold.source, 'emergency', false);
  }

  #phase(phase) {
    this.phase = phase;
    this.#page.changed();
  }
}

function onAir({ channelCount, failedChannelIds = [], blockedPorts = [] }) {
  const parts = [`Emergency on air on ${channelCount} ${channelCount === 1 ? 'channel' : 'channels'}`];
  if (failedChannelIds.length) parts.push(`not reached: ${failedChannelIds.join(', ')}`);
  if (blockedPorts.length) parts.push(`radio blocked: ${blockedPorts.map((port) => port.name ?? port).join(', ')}`);
  return parts.join('; ');
}
