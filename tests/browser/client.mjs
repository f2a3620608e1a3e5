// A client without a browser and without manners: raw WebSocket messages, for what a page would never send.
import assert from 'node:assert/strict';
import WebSocket from 'ws';
import { waitFor, within } from './wait.mjs';

export class Client {
  #socket;
  #lastId = 0;
  /** Everything that came in, parsed. */
  received = [];

  /** Connects with a token as bearer; fails with `{ status }` when the gateway answers HTTP instead. */
  static async connect(gateway, token) {
    const client = new Client();
    const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
    const socket = new WebSocket(`ws://${gateway.ready.http}/ws`, ['voiceping'], { headers });
    client.#socket = socket;
    client.closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('message', (data) => client.received.push(JSON.parse(String(data))));
    const opened = new Promise((resolve, reject) => {
      socket.once('open', resolve);
      socket.once('error', reject);
      socket.once('unexpected-response', (request, response) => {
        request.destroy();
        reject(Object.assign(new Error(`the gateway answered ${response.statusCode}`), { status: response.statusCode }));
      });
    });
    await within('the WebSocket to open', opened);
    socket.on('error', () => {}); // a reset is a way to close, and `closed` tells
    return client;
  }

  /** Connects as somebody with a fresh token; `of` is as for `Gateway.token`. */
  static async as(gateway, of) {
    return Client.connect(gateway, await gateway.token(of));
  }

  /** The HTTP status with which a handshake with this token is refused. */
  static async refusal(gateway, token) {
    let client;
    try {
      client = await Client.connect(gateway, token);
    } catch (error) {
      if (error.status) return error.status;
      throw error;
    }
    client.close();
    return 'accepted';
  }

  /** Sends anything: text, or a Buffer as a binary frame. */
  send(data) {
    this.#socket.send(data);
  }

  /** Sends a request and returns its reply, whole. */
  async request(type, data) {
    const id = `test-${++this.#lastId}`;
    this.send(JSON.stringify({ type, id, data }));
    return this.reply(id);
  }

  reply(id) {
    return waitFor(`the reply to ${id}`, () => this.received.find((message) => message.id === id));
  }

  /** Sends something and returns the next error that comes. */
  async errorAfter(data) {
    const before = this.received.length;
    this.send(data);
    return waitFor(`an error after ${String(data).slice(0, 60)}`, () =>
      this.received.slice(before).find(({ type }) => type === 'error'));
  }

  async assertAlive() {
    const pong = await this.request('ping', {});
    assert.deepEqual(pong.data, { type: 'pong' });
  }

  close() {
    this.#socket.close();
  }
}
