// The timeline: /timeline#token=<JWT> of a dispatcher or administrator. Channels are rows, bursts are bars.
//
// Hooks for tests on window.crosspatch: state { connected, bursts, channels }, show(startMs, spanMs).
// DOM: [data-channel="<id>"] holds a lane; [data-burst="<id>"] is a bar with data-role, data-cut, data-recorded, data-open.
import { Bursts, KINDS } from './bursts.js';
import { el, roleName, setText } from './dom.js';
import { play, records, seconds } from './review.js';
import { claimsOf, tokenFromAddress } from './token.js';

const SPANS = { '1 min': 60, '5 min': 300, '15 min': 900, '1 h': 3600, '6 h': 21_600, '24 h': 86_400 };
const TICKS_S = [5, 10, 15, 30, 60, 300, 900, 3600, 14_400, 28_800];
const POLL_MS = 1000;
const TICK_PX = 90; // room for a time

const byId = (id) => document.getElementById(id);
const token = tokenFromAddress();
const claims = claimsOf(token);
let bursts = new Bursts();
let after = 0;
let loadedFrom = Infinity; // records from here on are known
let span = 300_000;
let end = null; // null follows the clock
let clockAhead = 0; // of the box's clock, which the records are of
let picked = null;
let drawn = '';
let names = new Map(); // channel id -> name, in the event's order

window.crosspatch = { state: { connected: false, bursts: 0, channels: [] }, show: (start, length) => show(start + length, length) };

setText(byId('user'), claims.userName ?? '');
for (const [name, length] of Object.entries(SPANS)) byId('span').append(el('option', { value: length * 1000, selected: length === 300 }, name));
byId('span').onchange = () => show(end, Number(byId('span').value));
byId('earlier').onclick = () => show((end ?? now()) - span / 2, span);
byId('later').onclick = () => show((end ?? now()) + span / 2, span);
byId('now').onclick = () => show(null, span);
window.addEventListener('hashchange', () => location.reload());
if (token) poll();
else banner('This link has no token. Ask for a new one.');

function now() {
  return Date.now() + clockAhead;
}

function show(to, length) {
  end = to !== null && to >= now() ? null : to;
  span = length;
  byId('now').setAttribute('aria-pressed', end === null);
  load().then(draw);
}

// ---- records ----

async function poll() {
  const delay = await load();
  draw();
  setTimeout(poll, delay);
}

/** Gets what is new, and what is older than what is known if it is looked at. */
async function load() {
  const from = (end ?? now()) - span;
  const older = from < loadedFrom;
  try {
    // A burst that runs into the picture began before it.
    const wanted = older ? { from: new Date(from - 600_000).toISOString() } : { after };
    const found = await records(token, { ...wanted, kind: KINDS.join(',') });
    names = found.names;
    if (older) {
      bursts = new Bursts();
      loadedFrom = from;
    }
    for (const row of found.records) {
      bursts.take(row);
      after = Math.max(after, row.seq);
      clockAhead = Math.max(clockAhead, Date.parse(row.utc) - Date.now());
    }
    connected(true);
    return POLL_MS;
  } catch (error) {
    connected(false);
    banner(error.status ? error.message : 'No connection to the gateway. Trying again…');
    return error.status === 401 || error.status === 403 ? 30_000 : 2 * POLL_MS;
  }
}

function connected(is) {
  window.crosspatch.state.connected = is;
  byId('link').parentElement.dataset.connected = is;
  setText(byId('link'), is ? 'Connected' : 'Not connected');
  if (is) banner(null);
}

function banner(text) {
  byId('banner').hidden = text === null;
  byId('banner').dataset.kind = 'problem';
  setText(byId('banner'), text ?? '');
}

// ---- picture ----

function draw() {
  const [to, from] = [end ?? now(), (end ?? now()) - span];
  const place = (at) => ((at - from) / span) * 100;
  const seen = bursts.all.filter((burst) => burst.start < to && (burst.end ?? to) > from);
  const order = [...names.keys()];
  const talked = bursts.channels().sort(); // one that was removed is not in the order any more
  const channels = [...order.filter((id) => talked.includes(id)), ...talked.filter((id) => !names.has(id))];
  Object.assign(window.crosspatch.state, { bursts: seen.length, channels });
  setText(byId('range'), `${clock(from, true)} – ${clock(to)}`);
  const lanes = channels.map((channel) => {
    const own = seen.filter((burst) => burst.emergency || burst.channel === channel);
    const denials = bursts.denials.filter((d) => d.channel === channel && d.at >= from && d.at <= to);
    const marks = denials.map((d) => mark('denied-mark', '✕', place(d.at), `${d.name} was denied (${d.cause})`));
    const cuts = own.filter((b) => b.cutBy && b.end >= from && b.end <= to);
    marks.push(...cuts.map((b) => mark('cut-mark', '▼', place(b.end), `${b.name} was interrupted`)));
    const bars = own.map((burst) => bar(burst, Math.max(0, place(burst.start)), Math.min(100, place(burst.end ?? to))));
    return el('div.lane', { 'data-channel': channel }, el('h2', { title: channel }, nameOf(channel)), el('div.track', {}, ...bars, ...marks));
  });
  const empty = el('p.empty', {}, 'Nobody talked in this time.');
  const focused = document.activeElement?.dataset?.key;
  byId('chart').replaceChildren(axis(from, to, place), ...(lanes.length ? lanes : [empty]));
  if (focused) byId('chart').querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  if (picked) facts();
}

const nameOf = (channel) => names.get(channel) ?? channel;

function bar(burst, left, right) {
  const key = `${burst.burst} ${burst.start}`;
  const button = el('button.burst', {
    type: 'button', title: `${burst.name}, ${roleName(burst.role)}, ${clock(burst.start)}`,
    'data-burst': burst.burst, 'data-key': key, 'data-role': burst.emergency ? 'EMERGENCY' : burst.role,
    'data-cut': Boolean(burst.cutBy), 'data-recorded': Boolean(burst.recording), 'data-open': burst.end === null,
    'aria-pressed': burst === picked,
  }, burst.name);
  button.style.left = `${left}%`;
  button.style.width = `${right - left}%`;
  button.onclick = () => pick(burst);
  return button;
}

function mark(kind, sign, left, title) {
  const element = el(`span.${kind}`, { title }, sign);
  element.style.left = `${left}%`;
  return element;
}

function axis(from, to, place) {
  const most = Math.min(12, Math.max(2, byId('chart').clientWidth / TICK_PX));
  const step = (TICKS_S.find((s) => (to - from) / 1000 / s <= most) ?? TICKS_S.at(-1)) * 1000;
  const ticks = el('div.axis', { 'aria-hidden': 'true' });
  for (let at = Math.ceil(from / step) * step; at < to; at += step) {
    const tick = el('span', {}, clock(at, false, step >= 60_000));
    tick.style.left = `${place(at)}%`;
    ticks.append(tick);
  }
  return ticks;
}

function clock(at, withDay = false, short = false) {
  const date = new Date(at);
  const time = date.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', ...(short ? {} : { second: '2-digit' }), hour12: false });
  return withDay ? `${date.toLocaleDateString()} ${time}` : time;
}

// ---- one burst ----

async function pick(burst) {
  picked = burst;
  drawn = '';
  draw();
  if (!burst.recording) {
    byId('player').pause();
    byId('player').hidden = true;
    return;
  }
  try {
    await play(token, burst.recording.id, byId('player'));
  } catch (error) {
    if (error.name !== 'AbortError') banner(error.message);
  }
}

function facts() {
  const { burst, channel, name, role, emergency, start, end: over, cause, interrupted, measured, recording } = picked;
  const lines = {
    When: clock(start, true),
    Channel: emergency ? 'all channels' : nameOf(channel),
    Length: over === null ? 'still talking' : seconds(over - start),
    'Ended because': over === null ? '' : cause,
    Interrupted: [interrupted].flat().filter(Boolean).join(', '),
    'From the request to the old gate shut': measured && `${measured.requestToShutMs} ms`,
    'From the request to the first packet': measured?.requestToFirstPacketMs && `${measured.requestToFirstPacketMs} ms`,
    Recording: recording && `${seconds(recording.lengthMs ?? 0)}, ${recording.lost ?? 0} packets lost, SHA-256 ${recording.sha256}`,
  };
  const shown = Object.entries(lines).filter(([, text]) => text);
  const text = JSON.stringify([burst, shown]);
  if (text === drawn) return;
  drawn = text;
  setText(byId('picked'), `${emergency ? 'Emergency broadcast by ' : ''}${name} (${roleName(role)}), ${burst}`);
  byId('facts').replaceChildren(...shown.flatMap(([term, says]) => [el('dt', {}, term), el('dd', {}, says)]));
}
