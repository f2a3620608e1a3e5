// Instant recall on a dispatcher's page: the last bursts that were recorded, one click to hear each again.
import { el, roleName } from './dom.js';
import { play, recordings, seconds } from './review.js';

const SHOWN = 6;
const LOOK_MS = 3000;

/** Fills a section with the last recordings and keeps it so; it stays hidden where nothing is recorded. */
export function recall(token, section) {
  const list = section.querySelector('ol');
  const player = section.querySelector('audio');
  let shown = '';
  let names = new Map();
  const item = ({ id, channel, userName, role, startedUtc, lengthMs }) => {
    const time = startedUtc ? new Date(startedUtc).toLocaleTimeString() : '';
    const who = `${userName ?? 'Unknown'} (${roleName(role)})`;
    const text = `${who} on ${channel ? names.get(channel) ?? channel : 'all channels'}${lengthMs ? `, ${seconds(lengthMs)}` : ''}`;
    const button = el('button', { type: 'button', 'data-recording': id, 'aria-label': `Hear ${text} again` }, '▸');
    button.onclick = () => play(token, id, player).catch((error) => (button.title = error.message));
    return el('li', {}, button, el('time', {}, time), text);
  };
  const look = async () => {
    try {
      const found = await recordings(token, { newest: SHOWN });
      const last = found.recordings.filter((recording) => recording.kept).reverse();
      names = found.names;
      const now = JSON.stringify([last, [...names]]);
      if (now !== shown) list.replaceChildren(...last.map(item));
      shown = now;
      section.hidden = last.length === 0;
    } catch (error) {
      if (error.status === 401 || error.status === 403) return; // the role was taken away
    }
    setTimeout(look, LOOK_MS);
  };
  look();
}
