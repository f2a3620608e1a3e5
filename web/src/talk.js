// The talk page: /talk#token=<JWT> (or ?token=). Joins every channel of the token at once, without a click.
//
// Hooks for tests, all on window.crosspatch:
//   state                  live and plain: { connected, userId, userName, role, microphone, emergency, emergencyPhase,
//                          banner, messages: [{ time, text }],
//                          channels: { <id>: { joined, canTalk, speaker, speakerId, speakerRole, phase, granted, message } } }
//                          `joined` turns true when the channel can be heard and, with a microphone, be talked on;
//                          `emergency` is null or { userId, userName, own }
//   press(channel, { priority }), release(channel)      the talk buttons
//   emergencyPress(), emergencyRelease()                the emergency button, guard lifted
//   inboundStats(channel)  promise of { packetsReceived, packetsLost, totalAudioEnergy, ssrc }
//   tone(channel)          { hz, db }: the strongest tone in what is received
//   producerOf(channel)    mediasoup-client's Producer, or null
//   forceSend(channel, on) sends without asking for the floor, to prove that the gateway's gate is shut
// window.crosspatchTrack, set before the page loads, replaces the microphone: an audio track or a function returning one.
// DOM: [data-channel="<id>"] with .ptt, .priority, .speaker, .message inside; #emergency, #emergency-guard, #banner.
import { Channel } from './channel.js';
import { Emergency } from './emergency.js';
import { Media } from './media.js';
import { recall } from './recall.js';
import { Signal } from './signal.js';
import { Sound } from './sound.js';
import { TalkView } from './talk-view.js';
import { claimsOf, effectiveRole, tokenFromAddress } from './token.js';

const JOIN_AT_MOST = 10;
const RETRY_MS = [500, 1000, 2000, 4000, 8000, 10_000];
const FORCED_OUT = 4003;

const token = tokenFromAddress();
const claims = claimsOf(token);
const channels = new Map(); // id -> Channel, in the order of the gateway's list
let track = null; // the microphone's
let dismissed = false; // sent away by the gateway: no reconnection
let attempts = 0;
let sessionId = ''; // the connection that the next one continues

const state = {
  connected: false,
  userId: claims.userId ?? null,
  userName: claims.userName ?? 'Unknown',
  role: effectiveRole(claims),
  microphone: 'waiting', // waiting, on, off
  soundBlocked: false,
  channels: {},
  emergency: null,
  emergencyPhase: 'idle',
  receipt: null, // what the own broadcast reaches, as the gateway tells it
  banner: null, // { kind: 'problem' | 'emergency', text }
  messages: [],
};

// What channels and the emergency button may ask of the page.
const page = {
  state,
  link: null, // the connection of the moment: { signal, media, joining }
  request: (type, data) => page.link.signal.request(type, data),
  send: (channelId, reason, on) => page.link.media.send(channelId, reason, on),
  emergencyChannel: () => [...page.link.joined].find((id) => page.link.media.producer(id)) ?? null,
  say(text) {
    state.messages.push({ time: new Date().toISOString(), text });
    if (state.messages.length > 500) state.messages.shift();
    changed();
  },
  changed,
};

const emergency = new Emergency(page);
const sound = new Sound(changed);
const view = new TalkView({
  press: (id, priority) => channels.get(id)?.press(priority),
  release: (id) => channels.get(id)?.release(),
  releaseAll,
  toggle: (id) => (channels.get(id).wanted ? leave(channels.get(id)) : want(channels.get(id))),
  emergencyPress: () => emergency.press(),
  emergencyRelease: () => emergency.release(),
  unblockSound: () => sound.unblock(),
  openMicrophone,
  microphoneLevel: () => sound.microphoneLevel(),
  level: (id) => sound.level(id),
});

window.crosspatch = {
  state,
  press: (id, { priority = false } = {}) => channels.get(id).press(priority),
  release: (id) => channels.get(id).release(),
  emergencyPress: () => emergency.press(),
  emergencyRelease: () => emergency.release(),
  inboundStats,
  tone: (id) => sound.tone(id),
  producerOf: (id) => page.link?.media.producer(id) ?? null,
  forceSend: (id, on) => page.send(id, 'forced', on),
};

// Joining waits a moment for the microphone, so that `joined` also means ready to talk; not for ever, because the
// browser may be asking its user.
let microphoneSettled = Promise.resolve();
changed();
if (token) {
  microphoneSettled = Promise.race([openMicrophone(), new Promise((done) => setTimeout(done, 1500))]);
  connect();
  if (state.role !== 'GENERAL') recall(token, document.getElementById('recall'));
} else {
  problem('This link has no token. Ask for a new one.');
}
window.addEventListener('hashchange', () => location.reload());

// ---- connection ----

function connect() {
  const link = { joining: Promise.resolve(), joined: new Set() };
  const url = `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws?resume=${sessionId}`;
  const isCurrent = () => page.link === link;
  link.signal = new Signal(url, token, {
    opened() {
      attempts = 0;
      state.connected = true;
      state.banner = null;
      page.say('Connected');
    },
    pushed: (type, data, error) => isCurrent() && pushed(type, data, error),
    closed: (how) => isCurrent() && closed(how),
  });
  link.media = new Media(
    (type, data) => link.signal.request(type, data),
    () => link.signal.close(),
  );
  page.link = link;
  link.media.setTrack(track);
}

async function closed({ code, wasOpen }) {
  const { media, joined } = page.link;
  const wasConnected = state.connected;
  state.connected = false;
  for (const id of joined) sound.silence(id);
  joined.clear();
  for (const channel of channels.values()) channel.lost();
  emergency.stopped('Connection lost. The emergency broadcast has ended.');
  state.emergency = null;
  media.close();
  if (dismissed) return;
  if (code === FORCED_OUT) {
    dismiss('The gateway ended this session.');
    return;
  }
  if (wasConnected) page.say('Connection lost');
  // A browser does not tell why a connection was refused; but if pages still load, it was not the network.
  const refused = !wasOpen && (await pagesLoad());
  problem(refused ? 'The gateway refused this link; ask for a new one' : 'No connection to the gateway. Trying again…');
  setTimeout(connect, refused ? RETRY_MS.at(-1) : RETRY_MS[Math.min(attempts++, RETRY_MS.length - 1)]);
}

async function pagesLoad() {
  try {
    return (await fetch(location.pathname, { cache: 'no-store' })).ok;
  } catch {
    return false;
  }
}

function dismiss(reason) {
  dismissed = true;
  problem(reason);
}

function problem(text) {
  if (state.banner?.text !== text) page.say(text);
  state.banner = { kind: 'problem', text };
  changed();
}

function pushed(type, data, error) {
  const channel = channels.get(String(data.channelId));
  switch (type) {
    case 'channel-list':
      state.role = effectiveRole(data);
      setChannels(data.channels, data.channelNames ?? {});
      break;
    case 'session':
      sessionId = data.sessionId;
      break;
    case 'permission-update':
      setChannels(data.channels, {});
      page.say('Your channels have changed');
      break;
    case 'channel-state':
    case 'speaker-changed':
      channel?.update(data);
      break;
    case 'ptt-interrupted':
      channel?.interrupted(data);
      break;
    case 'talk-limit-warning':
      channel?.limitWarning(data.remainingMs);
      break;
    case 'emergency-broadcast-start':
      emergencyStarted(data);
      break;
    case 'emergency-broadcast-stop':
      emergencyStopped(data);
      break;
    case 'emergency-broadcast-receipt':
      state.receipt = data.channels;
      changed();
      break;
    case 'force-disconnect':
      dismiss(data.reason ? `You were disconnected: ${data.reason}` : 'You were disconnected.');
      break;
    case 'error':
      page.say(error ?? 'The gateway reports an error');
      break;
  }
}

// ---- channels ----

function setChannels(ids, names) {
  const listed = ids.map(String);
  for (const channel of [...channels.values()]) {
    if (listed.includes(channel.id)) continue;
    drop(channel);
    channels.delete(channel.id);
    delete state.channels[channel.id];
  }
  for (const id of listed) {
    if (!channels.has(id)) {
      const channel = new Channel(id, names[id] ?? id, page);
      channel.wanted = [...channels.values()].filter((other) => other.wanted).length < JOIN_AT_MOST;
      channels.set(id, channel);
      state.channels[id] = channel.view;
    }
    const channel = channels.get(id);
    channel.view.name = names[id] ?? channel.view.name;
    if (channel.wanted) want(channel);
  }
  changed();
}

/** Joins one channel after the other, so that the first of the list is the first joined. */
function want(channel) {
  channel.wanted = true;
  const { link } = page;
  link.joining = link.joining.then(() => join(channel, link));
  changed();
}

async function join(channel, link) {
  const { id } = channel;
  const stillWanted = () => channel.wanted && channels.get(id) === channel && page.link === link && !link.signal.closed;
  if (!stillWanted() || link.joined.has(id)) return;
  try {
    const { state: floor, userCount } = await link.signal.request('join-channel', { channelId: id });
    channel.update({ ...floor, userCount });
    await microphoneSettled;
    const consumer = await link.media.join(id, floor.producerId ?? `channel:${id}`);
    if (!stillWanted()) {
      link.media.leave(id);
      return;
    }
    link.joined.add(id);
    sound.hear(id, consumer.track);
    channel.view.canTalk = link.media.producer(id) !== null;
    channel.view.joined = true;
    changed();
  } catch (error) {
    if (!stillWanted()) return;
    link.media.leave(id);
    channel.wanted = false;
    channel.say(`Could not join: ${error.message}`);
  }
}

function leave(channel) {
  channel.wanted = false;
  drop(channel);
  page.request('leave-channel', { channelId: channel.id }).catch((error) => channel.say(error.message));
}

/** Ends everything this page does on a channel. */
function drop(channel) {
  channel.release();
  page.link.media.leave(channel.id);
  page.link.joined.delete(channel.id);
  sound.silence(channel.id);
  channel.lost();
}

function releaseAll() {
  for (const channel of channels.values()) channel.release();
  emergency.release();
}

// ---- emergency ----

function emergencyStarted({ dispatchUserId, dispatchUserName }) {
  if (state.emergency) return;
  state.emergency = { userId: dispatchUserId, userName: dispatchUserName, own: false };
  if (dispatchUserId !== state.userId) page.say(emergencyText(state.emergency));
  changed();
}

function emergencyStopped({ dispatchUserId, dispatchUserName }) {
  if (emergency.phase === 'active' && dispatchUserId === state.userId) {
    emergency.stopped('The gateway ended the emergency broadcast. Release the button.');
  }
  if (state.emergency && dispatchUserId !== state.userId) page.say(`Emergency broadcast by ${dispatchUserName} is over`);
  state.receipt = null;
  state.emergency = null;
  changed();
}

const emergencyText = ({ userName, own }) =>
  own ? 'Your emergency broadcast is on air' : `Emergency broadcast by Dispatch ${userName}`;

// ---- microphone ----

async function openMicrophone() {
  try {
    track = await sound.openMicrophone();
    track.addEventListener('ended', () => microphoneOff('it was unplugged or switched off'));
    state.microphone = 'on';
  } catch (error) {
    microphoneOff(error.name === 'NotAllowedError' ? 'the browser does not allow it' : error.message);
  }
  await useMicrophone();
}

function microphoneOff(reason) {
  track = null;
  state.microphone = 'off';
  page.say(`No microphone: ${reason}. You can only listen.`);
  useMicrophone();
}

async function useMicrophone() {
  const { link } = page;
  if (!link) return;
  await link.media.setTrack(track).catch((error) => page.say(`Microphone: ${error.message}`));
  for (const id of link.joined) channels.get(id).view.canTalk = link.media.producer(id) !== null;
  changed();
}

// ---- display and measuring ----

function changed() {
  state.emergencyPhase = emergency.phase;
  state.soundBlocked = sound.blocked;
  if (emergency.phase === 'active') {
    state.emergency = { userId: state.userId, userName: state.userName, own: true };
  } else if (state.emergency?.own) {
    state.emergency = null;
  }
  if (state.banner?.kind !== 'problem') {
    state.banner = state.emergency && { kind: 'emergency', text: emergencyText(state.emergency) };
  }
  view.render(state);
}

async function inboundStats(id) {
  const report = (await page.link.media.consumer(id)?.getStats()) ?? new Map();
  // Browsers have no such entry before the first packet.
  const inbound = [...report.values()].find(({ type }) => type === 'inbound-rtp') ?? {};
  const { packetsReceived = 0, packetsLost = 0, totalAudioEnergy = 0, ssrc = null } = inbound;
  return { packetsReceived, packetsLost, totalAudioEnergy, ssrc };
}
