// The front panel of a simulated box: its buttons and switches move the box's input lines, its lamps show the outputs.
//
// Reads GET /api/panel once and GET /api/panel/live as it changes; moves a line with POST /api/sim/lines/NAME.
// DOM: every button, switch and lamp carries [data-line="<name>"] and data-active="true" or "false", a desk's lamp also
// data-shows="<code>" (docs/lamps.md);
// [data-channel="<id>"] holds a channel's module, [data-port="<id>"] a radio port with data-receiver and data-transmitter,
// [data-level="<name>"] a level with data-peak; #emergency, #emergency-guard, #banner.
import { el, roleName, setText } from './dom.js';
import { holdButton, onAttentionLost } from './hold.js';
import { meter } from './meter.js';
import { readinessView, receiptView, showReach } from './reach.js';

const GUARD_CLOSES_MS = 10_000;
const MESSAGES_SHOWN = 6;
const RETRY_MS = 2000;

const byId = (id) => document.getElementById(id);
const meters = new Map(); // level name -> meter
const names = new Map(); // channel id -> name
const speakers = new Map(); // channel id -> element
const ports = new Map(); // user id of a radio -> shows its state
const lines = new Map(); // line name -> active, as the gateway says
const wires = new Map(); // input line name -> promise of the last move
const latched = new Map(); // line name -> its release

start();

async function start() {
  let panel;
  try {
    const reply = await fetch('/api/panel', { cache: 'no-store' });
    if (!reply.ok) throw new Error(`the gateway answers ${reply.status}`);
    panel = await reply.json();
  } catch {
    banner('problem', 'No connection to the gateway. Trying again…');
    setTimeout(start, RETRY_MS);
    return;
  }
  banner(null);
  draw(panel);
  follow();
}

function draw({ event, channels, desk, desks, simulated, ports, emergencyHoldMs, links, degraded, tls }) {
  document.body.dataset.simulated = simulated; // a real board is moved by its own buttons only
  setText(byId('event'), event);
  setText(byId('desk-name'), desk?.name ?? '');
  for (const { id, name } of channels) names.set(id, name);
  byId('channels').append(...channels.map((channel) => channelModule(channel, desk?.buttons ?? [])));
  for (const { name, level } of desks) {
    if (desks.length > 1) byId('desk-levels').append(el('h3', {}, name));
    byId('desk-levels').append(levelBar(`${level}.microphone`, 'Microphone'), levelBar(`${level}.loudspeaker`, 'Loudspeaker'));
  }
  byId('ports').append(...ports.map((port) => portModule(port, channels)));
  byId('radio').hidden = ports.length === 0;
  byId('links').append(...links.map((link) => joinLink(link, tls?.origins[0])));
  showTrust(tls);
  byId('links-section').hidden = links.length === 0;
  if (desk?.emergencyLine) emergencyButton(emergencyHoldMs, desk, simulated);
  else byId('emergency-panel').hidden = true;
  showDegraded(degraded);
  onAttentionLost(() => {}); // lets go of every held button; a latched one stays down, that is what the latch is for
  window.addEventListener('pagehide', () => [...latched.values()].forEach((release) => release()));
}

// ---- live ----

function follow() {
  const live = new EventSource('/api/panel/live');
  live.onopen = () => connected(true);
  live.onmessage = ({ data }) => update(JSON.parse(data));
  live.onerror = () => {
    connected(false);
    if (live.readyState !== EventSource.CLOSED) return; // otherwise the browser tries again by itself
    setTimeout(follow, RETRY_MS);
  };
}

function connected(yes) {
  document.body.dataset.connected = yes;
  setText(byId('link'), yes ? 'Live' : 'Not connected');
  if (yes) banner(null);
  else banner('problem', 'No connection to the gateway. What is shown may be old. Trying again…');
}

function update({ lines: listed = [], channels = [], levels = {}, meters: gauges = {}, radios = [], emergency = null, degraded = [], readiness, receipt = [], lamps = {} }) {
  for (const { name, active } of listed) setLine(name, active);
  for (const [name, shows] of Object.entries(lamps)) showLamp(name, shows);
  for (const channel of channels) showSpeaker(channel);
  for (const [name, level] of meters) level.set(levels[name] ?? null, gauges[name]);
  for (const radio of radios) ports.get(radio.userId)?.(radio);
  banner(emergency && 'emergency', emergency && `Emergency broadcast by Dispatch ${emergency.userName}`);
  showEmergency(emergency);
  const nameOf = (id) => names.get(id) ?? id;
  showReach(byId('reach'), emergency && receipt.length ? receiptView(receipt, nameOf) : readiness && readinessView(readiness, nameOf));
  showDegraded(degraded);
}

function setLine(name, active) {
  lines.set(name, active);
  for (const element of document.querySelectorAll(`[data-line="${CSS.escape(name)}"]`)) {
    element.dataset.active = active;
    if (element.matches('.lamp:not([data-shows])')) element.setAttribute('aria-label', active ? 'on' : 'off');
    if (element.matches('[role=switch]')) element.setAttribute('aria-checked', active);
    if (element.matches('.ptt')) element.setAttribute('aria-pressed', active);
  }
}

/** What a lamp says, in a word: a pattern of flashes is hard to tell from another by eye, and said aloud by none. */
function showLamp(name, shows) {
  for (const element of document.querySelectorAll(`.lamp[data-line="${CSS.escape(name)}"]`)) {
    element.dataset.shows = shows;
    element.title = shows;
    if (element.getAttribute('aria-label') !== shows) element.setAttribute('aria-label', shows);
  }
}

/** Moves an input. Moves of one line arrive in the order they were made, however short a press is. */
function moveLine(name, active) {
  const before = wires.get(name) ?? Promise.resolve();
  const move = before.then(() => post(name, active));
  wires.set(name, move);
  return move;
}

async function post(name, active) {
  try {
    const reply = await fetch(`/api/sim/lines/${encodeURIComponent(name)}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ active }),
      keepalive: true, // a release must get through even if the page is closed at that moment
    });
    if (!reply.ok) throw new Error(`the gateway answers ${reply.status}`);
  } catch (error) {
    say(`Line ${name} was not moved: ${error.message}`);
  }
}

// ---- channels ----

function channelModule({ id, name }, buttons) {
  const own = buttons.filter(({ channels }) => channels.includes(id));
  const ptt = own.find(({ pttLine }) => pttLine)?.pttLine;
  const tally = own.find(({ tallyLine }) => tallyLine)?.tallyLine;
  const speaker = el('p.speaker', {}, 'Nobody is talking');
  speakers.set(id, speaker);
  const latch = el('span.ptt-hint', {}, '');
  const button = el('button.ptt', { type: 'button', 'data-line': ptt ?? '', 'data-active': 'false', 'aria-pressed': 'false', 'aria-label': `${name}: talk` },
    el('span.ptt-label', {}, 'Talk'), latch);

  const unlatch = () => {
    latched.delete(ptt);
    setText(latch, '');
    moveLine(ptt, false);
  };
  let keepPressed = false;
  holdButton(
    button,
    (event) => {
      if (latched.has(ptt)) {
        unlatch();
        keepPressed = true; // this press only opened the latch; letting go means nothing
        return;
      }
      keepPressed = event.shiftKey;
      if (keepPressed) setLatch();
      else moveLine(ptt, true);
    },
    () => {
      if (!keepPressed) moveLine(ptt, false);
    },
  );
  const setLatch = () => {
    latched.set(ptt, unlatch);
    setText(latch, 'Kept pressed');
    moveLine(ptt, true);
  };
  // Not `contextmenu`: that is also what a long touch makes, and here a long touch is talking.
  button.addEventListener('pointerdown', ({ button: which }) => {
    if (which === 2) (latched.has(ptt) ? unlatch : setLatch)();
  });

  return el('section.card', { 'data-channel': id }, el('div.title', {}, ...(tally ? [lamp(tally, 'amber')] : []), el('h2', {}, name)), speaker, ...(ptt ? [button] : []));
}

function showSpeaker({ channelId, currentSpeaker, speakerName, speakerRole }) {
  const element = speakers.get(channelId);
  if (!element) return;
  const role = roleName(speakerRole);
  setText(element, currentSpeaker ? `${speakerName ?? currentSpeaker}${role && ` (${role})`} is talking` : 'Nobody is talking');
}

// ---- emergency ----

let showEmergency = () => {};

function emergencyButton(holdMs, { name: deskName, emergencyLine, emergencyTallyLine, faultTallyLine }, simulated) {
  const panel = byId('emergency-panel');
  const button = byId('emergency');
  const guard = byId('emergency-guard');
  const seconds = holdMs / 1000;
  button.dataset.line = emergencyLine;
  byId('emergency-lamps').append(...[[emergencyTallyLine, 'red'], [faultTallyLine, 'amber']].filter(([line]) => line).map(([line, colour]) => lamp(line, colour)));
  let guardTimer;
  let pressed = false;
  let fired = false;
  let running = null;
  let holdTimer;
  panel.style.setProperty('--hold', `${holdMs}ms`);

  const render = () => {
    const ours = fired && running?.userName === deskName; // not while somebody else's is on air
    panel.dataset.phase = ours ? 'active' : pressed ? (fired ? 'starting' : 'arming') : 'idle';
    const rest = !simulated ? `Hold the button of the desk for ${seconds} seconds, keep holding to talk.` : button.disabled ? 'Talks to every channel at once. Lift the guard first.' : `Hold for ${seconds} seconds, keep holding to talk.`;
    const text = { idle: rest, arming: 'Keep holding…', starting: 'Held long enough, not on air yet.', active: 'On air on every channel. Let go to end.' };
    setText(byId('emergency-text'), text[panel.dataset.phase]);
  };
  const lift = (lifted) => {
    clearTimeout(guardTimer);
    if (lifted) guardTimer = setTimeout(() => lift(false), GUARD_CLOSES_MS);
    button.disabled = !lifted;
    panel.dataset.guard = lifted ? 'up' : 'down';
    guard.setAttribute('aria-expanded', lifted);
    setText(guard, lifted ? 'Close the guard' : 'Lift the guard');
    render();
  };

  guard.onclick = () => lift(button.disabled);
  holdButton(
    button,
    () => {
      clearTimeout(guardTimer);
      pressed = true;
      moveLine(emergencyLine, true);
      holdTimer = setTimeout(() => {
        fired = true;
        render();
      }, holdMs);
      render();
    },
    () => {
      clearTimeout(holdTimer);
      moveLine(emergencyLine, false);
      if (!fired) say(`Emergency aborted: held for less than ${seconds} seconds`);
      pressed = fired = false;
      lift(true);
    },
  );
  showEmergency = (emergency) => {
    running = emergency;
    render();
  };
  render();
}

// ---- radio, levels, links ----

/** What a receiver and a transmitter do, as people say it: the words of the API on the left. */
const RECEIVER = {
  closed: 'Squelch closed',
  open: 'Carrier, not talking',
  talking: 'Carrier, talking',
  denied: 'Carrier, but somebody else talks',
  preempted: 'Pre-empted, radio still keyed',
  stuck: 'Carrier stuck, cut off',
};
const TRANSMITTER = {
  unkeyed: 'Unkeyed',
  blocked: 'Waits for the carrier to drop',
  keyed: 'Keyed',
  'timed-out': 'Cut off: transmit time-out',
};

function portModule({ id, user, name, channel, carrierLine: carrier, pttLine }, channels) {
  const toggle = el('button.switch', { type: 'button', role: 'switch', 'aria-checked': 'false', 'data-line': carrier ?? '', 'data-active': 'false' }, el('i'), 'Carrier');
  toggle.setAttribute('aria-label', `${name}: carrier`);
  toggle.onclick = () => moveLine(carrier, !lines.get(carrier));
  const channelName = channels.find((other) => other.id === channel)?.name ?? channel;
  const [receiver, transmitter] = ['receiver', 'transmitter'].map((part) => el(`span.state.${part}`, { role: 'status' }, '–'));
  const card = el('section.card', { 'data-port': id },
    el('div.title', {}, ...(pttLine ? [lamp(pttLine, 'red')] : []), el('h2', {}, name), el('span.users', {}, `on ${channelName}`)),
    el('p.states', {}, el('span', {}, 'Receiver '), receiver, el('span', {}, 'Transmitter '), transmitter),
    ...(carrier ? [toggle] : []), levelBar(`radio.${id}.receive`, 'Receive'), levelBar(`radio.${id}.transmit`, 'Transmit'));
  ports.set(user, (state) => {
    Object.assign(card.dataset, { receiver: state.receiver, transmitter: state.transmitter });
    setText(receiver, RECEIVER[state.receiver] ?? state.receiver);
    setText(transmitter, TRANSMITTER[state.transmitter] ?? state.transmitter);
  });
  return card;
}

const lamp = (line, colour) =>
  el(`span.lamp.${colour}`, { role: 'img', 'aria-label': 'off', 'data-line': line, 'data-active': 'false' });

function levelBar(name, label) {
  const bar = meter(label);
  meters.set(name, bar);
  bar.element.dataset.level = name;
  return bar.element;
}

/** Opens here; what is copied leads here from the network. */
function joinLink({ label, url }, origin = location.href) {
  const address = new URL(url, origin).href;
  const copy = el('button', { type: 'button' }, 'Copy link');
  copy.setAttribute('aria-label', `Copy the link for ${label}`);
  copy.onclick = async () => {
    try {
      await navigator.clipboard.writeText(address);
      say(`Link for ${label} copied`);
    } catch {
      window.prompt('Copy this link:', address); // browsers hide the clipboard from pages opened over http
    }
  };
  return el('li', {}, el('a', { href: url, target: '_blank', rel: 'noopener' }, label), copy);
}

function showTrust(tls) {
  const teach = tls?.authority && tls.origins.length > 0; // other certificates browsers know already
  byId('trust').hidden = !teach;
  if (!teach) return;
  setText(byId('origins'), tls.origins.map((origin) => `${origin}/trust`).join(' or '));
  setText(byId('fingerprint'), tls.fingerprint);
}

// ---- what is said in words ----

function showDegraded(parts) {
  const section = byId('degraded');
  section.hidden = parts.length === 0;
  const text = parts.map(({ part, why }) => `${part}: ${why}`);
  if (section.dataset.text === text.join('\n')) return;
  section.dataset.text = text.join('\n');
  section.replaceChildren(el('h2', {}, 'Not everything works'), el('ul', {}, ...text.map((line) => el('li', {}, line))));
}

function banner(kind, text) {
  const element = byId('banner');
  element.hidden = !kind;
  element.dataset.kind = kind ?? '';
  setText(element, text ?? '');
}

function say(text) {
  const now = new Date();
  const time = now.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit' });
  byId('messages').append(el('li', {}, el('time', { dateTime: now.toISOString() }, time), text));
  while (byId('messages').children.length > MESSAGES_SHOWN) byId('messages').firstChild.remove();
}
