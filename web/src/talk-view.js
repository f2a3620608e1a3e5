// What the talk page looks like. It draws the state; every decision is made elsewhere.
import { el, roleName, setText } from './dom.js';
import { holdButton, onAttentionLost } from './hold.js';
import { meter } from './meter.js';
import { receiptView, showReach } from './reach.js';

const GUARD_CLOSES_MS = 10_000;
const MESSAGES_SHOWN = 8;

const byId = (id) => document.getElementById(id);

export class TalkView {
  #actions;
  #cards = new Map(); // id -> { element, render }
  #state = null;
  #selected = null;
  #pressedBySpace = null;
  #guardTimer;
  #shownMessages = null; // the last one that is in the list
  #microphone = meter('Microphone');

  constructor(actions) {
    this.#actions = actions;
    byId('microphone-meter').append(this.#microphone.element);
    byId('unblock').onclick = () => actions.unblockSound();
    byId('microphone-retry').onclick = () => actions.openMicrophone();
    this.#emergencyButton();
    this.#spaceBar();
    onAttentionLost(() => {
      this.#pressedBySpace = null;
      actions.releaseAll();
    });
    setInterval(() => this.#tick(), 100);
  }

  render(state) {
    this.#state = state;
    setText(byId('user'), state.userName);
    setText(byId('role'), roleName(state.role));
    setText(byId('link'), state.connected ? 'Connected' : 'Not connected');
    document.body.dataset.connected = state.connected;
    document.body.dataset.role = state.role;
    byId('unblock').hidden = !state.soundBlocked;
    byId('microphone-retry').hidden = state.microphone !== 'off';

    const banner = byId('banner');
    banner.hidden = !state.banner;
    banner.dataset.kind = state.banner?.kind ?? '';
    setText(banner, state.banner?.text ?? '');

    this.#renderChannels(state);
    this.#renderEmergency(state);
    this.#renderMessages(state.messages);
  }

  #renderChannels(state) {
    for (const [id, { element }] of this.#cards) {
      if (state.channels[id]) continue;
      element.remove();
      this.#cards.delete(id);
    }
    for (const [id, channel] of Object.entries(state.channels)) {
      if (!this.#cards.has(id)) {
        const card = this.#card(id);
        this.#cards.set(id, card);
        byId('channels').append(card.element);
      }
      this.#cards.get(id).render(channel, state);
    }
    if (!state.channels[this.#selected]) this.#select(Object.keys(state.channels)[0] ?? null);
    byId('no-channels').hidden = !state.connected || this.#cards.size > 0;
  }

  #card(id) {
    const { press, release, toggle, level } = this.#actions;
    const name = el('h2');
    const users = el('span.users');
    const leave = el('button.toggle', { type: 'button', onclick: () => toggle(id) });
    const speaker = el('p.speaker');
    const label = el('span.ptt-label');
    const hint = el('span.ptt-hint');
    const ptt = el('button.ptt', { type: 'button' }, label, hint);
    const priority = el('button.priority', { type: 'button' }, 'Priority');
    const message = el('p.message');
    const received = meter('Receive');
    const element = el('section.card', { 'data-channel': id }, el('header', {}, name, users, leave), speaker,
      received.element, el('div.buttons', {}, ptt, priority), message);

    holdButton(ptt, () => press(id, false), () => release(id));
    holdButton(priority, () => press(id, true), () => release(id));
    for (const type of ['pointerdown', 'focusin']) element.addEventListener(type, () => this.#select(id));

    const render = (channel, state) => {
      const busy = channel.speakerId !== null && channel.speakerId !== state.userId;
      Object.assign(element.dataset, { phase: channel.phase, busy, joined: channel.joined });
      setText(name, channel.name);
      setText(users, channel.joined && channel.users ? `${channel.users} here` : '');
      setText(leave, channel.joined ? 'Leave' : 'Join');
      leave.setAttribute('aria-label', `${leave.textContent} ${channel.name}`);
      leave.disabled = !state.connected;
      setText(speaker, speakerText(channel, state));
      setText(label, pttText(channel, busy, state));
      setText(hint, hintText(channel, busy));
      ptt.setAttribute('aria-label', `${channel.name}: ${label.textContent}`);
      ptt.setAttribute('aria-pressed', channel.phase === 'talking');
      priority.hidden = state.role !== 'DISPATCH';
      priority.setAttribute('aria-label', `${channel.name}: hold to talk with priority`);
      setText(message, channel.message);
      received.set(channel.joined ? level(id) : null);
    };
    return { element, render };
  }

  #select(id) {
    this.#selected = id;
    for (const [other, { element }] of this.#cards) element.dataset.selected = other === id;
  }

  #spaceBar() {
    const { press, release } = this.#actions;
    document.addEventListener('keydown', (event) => {
      if (event.code !== 'Space' || event.target.closest('button, a, input, summary')) return;
      event.preventDefault();
      if (event.repeat || this.#pressedBySpace || !this.#selected) return;
      this.#pressedBySpace = this.#selected;
      press(this.#pressedBySpace, false);
    });
    document.addEventListener('keyup', (event) => {
      if (event.code !== 'Space' || !this.#pressedBySpace) return;
      release(this.#pressedBySpace);
      this.#pressedBySpace = null;
    });
  }

  #emergencyButton() {
    const { emergencyPress, emergencyRelease } = this.#actions;
    const button = byId('emergency');
    byId('emergency-guard').onclick = () => this.#liftGuard(button.disabled);
    holdButton(
      button,
      () => {
        clearTimeout(this.#guardTimer);
        emergencyPress();
      },
      () => {
        emergencyRelease();
        this.#liftGuard(true);
      },
    );
  }

  /** A lifted guard falls shut by itself. */
  #liftGuard(lifted) {
    clearTimeout(this.#guardTimer);
    if (lifted) this.#guardTimer = setTimeout(() => this.#liftGuard(false), GUARD_CLOSES_MS);
    byId('emergency').disabled = !lifted;
    byId('emergency-panel').dataset.guard = lifted ? 'up' : 'down';
    const guard = byId('emergency-guard');
    guard.setAttribute('aria-expanded', lifted);
    setText(guard, lifted ? 'Close the guard' : 'Lift the guard');
    this.#renderEmergency(this.#state);
  }

  #renderEmergency(state) {
    const panel = byId('emergency-panel');
    panel.hidden = state.role !== 'DISPATCH';
    panel.dataset.phase = state.emergencyPhase;
    const texts = {
      idle: byId('emergency').disabled ? 'Talks to every channel at once. Lift the guard first.' : 'Hold for 2 seconds, keep holding to talk.',
      arming: 'Keep holding…',
      starting: 'Going on air…',
      active: 'On air on every channel. Let go to end.',
      denied: 'Not on air. Let go.',
    };
    setText(byId('emergency-text'), texts[state.emergencyPhase]);
    const nameOf = (id) => state.channels[id]?.name ?? id;
    showReach(byId('reach'), state.emergencyPhase === 'active' && state.receipt ? receiptView(state.receipt, nameOf) : null);
  }

  #renderMessages(messages) {
    // Only additions, so that a screen reader reads each message once.
    const list = byId('messages');
    const last = messages.at(-1);
    if (!last || last === this.#shownMessages) return;
    const from = messages.indexOf(this.#shownMessages) + 1;
    for (const message of messages.slice(from)) {
      const time = new Date(message.time).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit' });
      list.append(el('li', {}, el('time', { dateTime: message.time }, time), message.text));
    }
    this.#shownMessages = last;
    while (list.children.length > MESSAGES_SHOWN) list.firstChild.remove();
  }

  #tick() {
    this.#microphone.set(this.#actions.microphoneLevel());
    if (this.#state) this.#renderChannels(this.#state);
  }
}

function speakerText(channel, state) {
  if (!channel.joined) return 'Not joined';
  if (channel.speakerId === null) return 'Nobody is talking';
  if (channel.speakerId === state.userId) return channel.granted ? 'You are talking' : 'You are talking on another device';
  const role = roleName(channel.speakerRole);
  return role ? `${channel.speaker} (${role}) is talking` : `${channel.speaker} is talking`;
}

function pttText(channel, busy, state) {
  if (!channel.joined) return 'Not joined';
  if (state.microphone === 'off') return 'Listen only';
  if (!channel.canTalk) return 'Microphone is starting';
  return {
    idle: busy ? 'Busy' : 'Hold to talk',
    requesting: 'Asking for the channel…',
    talking: 'On air',
    denied: 'Not granted',
    interrupted: 'Interrupted',
  }[channel.phase];
}

function hintText(channel, busy) {
  if (channel.phase === 'talking') {
    const left = channel.limitAt && Math.max(0, Math.ceil((channel.limitAt - Date.now()) / 1000));
    return channel.limitAt ? `${left} s left` : 'Let go to end';
  }
  if (channel.phase === 'interrupted' || channel.phase === 'denied') return 'Let go, then press again';
  return busy && channel.phase === 'idle' ? `${channel.speaker} is talking` : '';
}
