// The checks of the box: /doctor on the box itself, /doctor#token=<JWT> of an administrator from elsewhere.
//
// Reads GET /api/doctor once, and again when asked. DOM: body[data-well]; [data-check="<name>"] holds a check with
// data-outcome="pass", "fail" or "skip".
import { el, setText } from './dom.js';
import { tokenFromAddress } from './token.js';

const WORDS = { pass: 'pass', fail: 'FAIL', skip: 'skip' };
const byId = (id) => document.getElementById(id);
const token = tokenFromAddress();

byId('again').onclick = look;
window.addEventListener('hashchange', () => location.reload());
look();

async function look() {
  byId('again').disabled = true;
  setText(byId('summary'), 'Looking…');
  try {
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    const reply = await fetch('/api/doctor', { headers, cache: 'no-store' });
    const report = await reply.json();
    if (reply.status === 401 && !token) throw new Error('From elsewhere this page needs the link of an administrator.');
    if (!reply.ok) throw new Error(report.error);
    banner(null);
    show(report);
  } catch (error) {
    setText(byId('summary'), '');
    banner(error instanceof TypeError ? 'No connection to the gateway.' : error.message);
  }
  byId('again').disabled = false;
}

function show({ at, version, checks }) {
  const failed = checks.filter(({ outcome }) => outcome === 'fail').length;
  document.body.dataset.well = failed === 0;
  document.body.dataset.connected = true;
  setText(byId('version'), version);
  setText(byId('at'), at.replace('T', ' ').replace(/\..*/, ' UTC'));
  setText(byId('summary'), failed === 0 ? 'Nothing is wrong.' : `${failed} of ${checks.length} checks fail.`);
  byId('checks').replaceChildren(...checks.map(check));
}

function check({ name, outcome, found }) {
  const sentences = el('div', {}, ...found.map((sentence) => el('p', {}, ...withCode(sentence))));
  return el('li', { 'data-check': name, 'data-outcome': outcome }, el('b', {}, WORDS[outcome]), el('h2', {}, name), sentences);
}

/** What stands between backticks is a command. */
function withCode(sentence) {
  return sentence.split('`').map((part, n) => (n % 2 === 1 ? el('code', {}, part) : part));
}

function banner(text) {
  byId('banner').hidden = text === null;
  setText(byId('banner'), text ?? '');
}
