// What an emergency broadcast would reach, and what a running one does reach: a line and a list, for both pages.
import { el } from './dom.js';

const RADIO = { ready: 'not keyed', keyed: 'keyed', blocked: 'receiving; keyed when its carrier ends', preempted: 'keyed, but its own user still transmits and does not hear', broken: 'cannot transmit' };

/** Shows `{ summary, lines: [{ ok, text }] }`, or nothing. */
export function showReach(section, reach) {
  const text = JSON.stringify(reach);
  if (section.dataset.text === text) return; // so that a screen reader reads it once
  section.dataset.text = text;
  section.hidden = !reach;
  const lines = (reach?.lines ?? []).map((line) => el('li', { 'data-ok': line.ok }, line.text));
  section.replaceChildren(el('p', {}, reach?.summary ?? ''), el('ul', {}, ...lines));
}

/** Before anybody needs it: the line, and only what is in the way. `nameOf` gives a channel's name. */
export function readinessView({ summary, desks, channels }, nameOf) {
  const lines = desks.map((text) => ({ ok: false, text }));
  for (const { channelId, obstacles, radios } of channels) {
    const name = nameOf(channelId);
    for (const obstacle of obstacles) lines.push({ ok: false, text: `${name}: ${obstacle}` });
    for (const radio of radios.filter(({ state }) => state === 'blocked' || state === 'preempted')) {
      lines.push({ ok: false, text: `${name}: ${radio.name} is ${RADIO[radio.state]}` });
    }
  }
  return { summary, lines };
}

/** While it runs: every channel with what reaches it. */
export function receiptView(channels, nameOf) {
  const reached = channels.filter(({ acquired, mediaFlowing }) => acquired && mediaFlowing).length;
  const lines = channels.map(({ channelId, acquired, mediaFlowing, radios }) => {
    const state = !acquired ? 'not taken, trying again' : mediaFlowing ? 'on air' : 'taken, no audio yet';
    const keyed = radios.map((radio) => `; ${radio.name} ${RADIO[radio.state] ?? radio.state}`);
    const ok = acquired && mediaFlowing && radios.every((radio) => radio.state === 'keyed');
    return { ok, text: `${nameOf(channelId)}: ${state}${keyed.join('')}` };
  });
  return { summary: `On air on ${reached} of ${channels.length} channels`, lines };
}
