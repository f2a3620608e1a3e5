// One channel as this page sees it: who talks, and how far our own press has come.
//
// A press sends exactly one start and, when it is let go, exactly one stop. Whatever happens in between (refused,
// interrupted, connection lost), nothing more is sent until the button was released and is pressed again.

export class Channel {
  /** What the page shows, and what `window.crosspatch.state.channels` holds. Plain data only. */
  view;
  wanted = false; // the user wants to be in this channel
  #page;
  #held = null;
  #lastInterruptedBurst = null;
  #messageTimer;

  /** `page` offers request, send, say, changed and the live `state`. */
  constructor(id, name, page) {
    this.#page = page;
    this.view = {
      id,
      name,
      joined: false,
      canTalk: false,
      speaker: null,
      speakerId: null,
      speakerRole: null,
      users: null,
      phase: 'idle', // idle, requesting, talking, denied, interrupted
      granted: false,
      limitAt: null,
      message: '',
    };
  }

  get id() {
    return this.view.id;
  }

  /** Somebody else has the floor. */
  get busy() {
    return this.view.speakerId !== null && this.view.speakerId !== this.#page.state.userId;
  }

  press(priority = false) {
    if (this.#held) return;
    const { request, send, state } = this.#page;
    const problem = !state.connected || !this.view.joined
      ? 'Not connected to this channel yet'
      : !this.view.canTalk && 'No microphone: you can only listen';
    const press = { kind: priority ? 'priority-ptt' : 'ptt', link: this.#page.link, burstId: null, sent: !problem };
    this.#held = press;
    if (problem) {
      this.#phase('denied', problem);
      return;
    }
    this.#phase('requesting', '');
    send(this.id, 'ptt', true); // the gateway's gate is shut until it grants, so nothing of this is heard too early
    request(`${press.kind}-start`, { channelId: this.id }).then(
      (reply) => this.#answered(press, reply),
      (error) => this.view.phase === 'requesting' && this.#stopped(press, 'denied', error.message),
    );
  }

  release() {
    const press = this.#held;
    if (!press) return;
    this.#held = null;
    this.#page.send(this.id, 'ptt', false);
    if (press.sent && press.link === this.#page.link) {
      const burst = press.burstId ? { burstId: press.burstId } : {};
      this.#page.request(`${press.kind}-stop`, { channelId: this.id, ...burst }).then(
        (reply) => reply.state && this.update(reply.state),
        (error) => this.say(error.message),
      );
    }
    this.#phase('idle');
    this.#forgetMessageLater();
  }

  /** The gateway took the floor away (`ptt-interrupted`). */
  interrupted({ message, burstId }) {
    this.#lastInterruptedBurst = burstId ?? null;
    const press = this.#held;
    const ours = this.view.phase === 'talking' && (!burstId || !press.burstId || burstId === press.burstId);
    if (ours) this.#stopped(press, 'interrupted', `${message}. Release and press again.`);
    else this.say(message);
  }

  /** The connection is gone: whatever is still held counts for nothing. */
  lost() {
    Object.assign(this.view, { joined: false, canTalk: false, speaker: null, speakerId: null, speakerRole: null, users: null });
    if (this.#held) this.#stopped(this.#held, 'interrupted', 'Connection lost. Release and press again.');
    this.#page.changed();
  }

  limitWarning(remainingMs) {
    this.view.limitAt = Date.now() + remainingMs;
    this.say(`Talk time ends in ${Math.ceil(remainingMs / 1000)} seconds`);
  }

  /** A state as it stands on the wire. */
  update(state) {
    const changed = this.view.speakerId !== (state.currentSpeaker ?? null);
    Object.assign(this.view, {
      speakerId: state.currentSpeaker ?? null,
      speaker: state.currentSpeaker ? state.speakerName ?? state.currentSpeaker : null,
      speakerRole: state.currentSpeaker ? state.speakerRole ?? null : null,
      users: state.userCount ?? this.view.users,
    });
    if (changed && !this.#held) this.#forgetMessageLater();
    this.#page.changed();
  }

  say(text) {
    clearTimeout(this.#messageTimer);
    this.view.message = text;
    this.#page.say(`${this.view.name}: ${text}`);
    if (!this.#held) this.#forgetMessageLater();
  }

  #answered(press, reply) {
    if (reply.state) this.update(reply.state);
    if (press !== this.#held || this.view.phase !== 'requesting') return; // let go meanwhile, and the stop is on its way
    if (reply.success === false) {
      const busy = reply.currentSpeakerName ? `${reply.currentSpeakerName} is talking` : 'The channel is busy';
      this.#stopped(press, 'denied', reply.message || busy);
      return;
    }
    press.burstId = reply.state?.burstId ?? null;
    if (press.burstId !== null && press.burstId === this.#lastInterruptedBurst) {
      this.#stopped(press, 'interrupted', `${this.view.message}. Release and press again.`);
      return;
    }
    this.#phase('talking', '');
  }

  #stopped(press, phase, message) {
    if (press !== this.#held) return;
    this.#page.send(this.id, 'ptt', false);
    this.#phase(phase, message);
  }

  #phase(phase, message) {
    Object.assign(this.view, { phase, granted: phase === 'talking', limitAt: null });
    if (message) this.say(message);
    else if (message === '') this.#clearMessage();
    this.#page.changed();
  }

  #clearMessage() {
    clearTimeout(this.#messageTimer);
    this.view.message = '';
  }

  #forgetMessageLater() {
    clearTimeout(this.#messageTimer);
    this.#messageTimer = setTimeout(() => {
      this.#clearMessage();
      this.#page.changed();
    }, 6000);
  }
}
