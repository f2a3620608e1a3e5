// The signaling connection: requests answered by id, pushes without one.

const REPLY_TIMEOUT_MS = 10_000;
const PING_EVERY_MS = 10_000;

export class Signal {
  #socket;
  #waiting = new Map();
  #nextId = 1;
  #pinger;

  /** `events` has `opened()`, `pushed(type, data)` and `closed({ code, wasOpen })`. */
  constructor(url, token, events) {
    let wasOpen = false;
    this.#socket = new WebSocket(url, ['voiceping', token]);
    this.#socket.onopen = () => {
      wasOpen = true;
      this.#pinger = setInterval(() => this.request('ping').catch(() => this.close()), PING_EVERY_MS);
      events.opened();
    };
    this.#socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.id !== undefined) this.#answer(message);
      else events.pushed(message.type, message.data ?? {}, message.error);
    };
    this.#socket.onclose = ({ code }) => this.#ended(events, { code, wasOpen });
    this.close = () => {
      this.#socket.close();
      // A dead network never confirms a close, so do not wait for it.
      this.#ended(events, { code: 1006, wasOpen });
    };
  }

  /** Resolves with the reply's data; a late or failed one rejects with an Error that people can read. */
  request(type, data) {
    if (this.#socket.readyState !== WebSocket.OPEN) return Promise.reject(new Error('Not connected to the gateway'));
    const id = String(this.#nextId++);
    this.#socket.send(JSON.stringify({ type, id, data }));
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new Error('The gateway does not answer'));
      }, REPLY_TIMEOUT_MS);
      this.#waiting.set(id, { resolve, reject, timer });
    });
  }

  #answer({ id, type, data, error }) {
    const waiting = this.#waiting.get(String(id));
    if (!waiting) return;
    this.#waiting.delete(String(id));
    clearTimeout(waiting.timer);
    if (type === 'error') waiting.reject(new Error(error || 'The gateway refused'));
    else waiting.resolve(data ?? {});
  }

  #ended(events, how) {
    if (this.closed) return;
    this.closed = true;
    clearInterval(this.#pinger);
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(new Error('Connection to the gateway lost'));
    }
    this.#waiting.clear();
    events.closed(how);
  }
}
