// A client as they exist: mediasoup-client as it is published, one socket a channel. Bundled for the browser by
// existing.test.mjs; nothing of the gateway's own pages is in it.
import { Device } from 'mediasoup-client';

class ExistingClient {
  #socket;
  #waiting = new Map();
  #lastId = 0;
  #handshake;
  /** Pushes as they came. */
  pushes = [];
  /** One for each time that somebody began to talk; none is ever closed by this client. */
  consumers = [];

  constructor(channelId, { dtlsServer }) {
    this.channelId = channelId;
    // What the client is told that the other side is; the library heeds it where it sends.
    this.#handshake = dtlsServer ? { role: 'client' } : {};
  }

  async connect(token) {
    this.#socket = new WebSocket(`ws://${location.host}/ws`, ['voiceping', token]);
    this.#socket.onmessage = ({ data }) => this.#received(JSON.parse(data));
    await new Promise((opened, failed) => Object.assign(this.#socket, { onopen: opened, onerror: failed }));
    this.closed = new Promise((closed) => { this.#socket.onclose = ({ code }) => closed(code); });
  }

  #received(message) {
    const waiting = this.#waiting.get(message.id);
    if (waiting) {
      this.#waiting.delete(message.id);
      if (message.type === 'error') waiting.failed(new Error(message.error));
      else waiting.done(message.data);
      return;
    }
    this.pushes.push(message);
    if (message.type === 'speaker-changed') this.#hear(message.data);
  }

  request(type, data) {
    const id = `${this.channelId}-${++this.#lastId}`;
    this.#socket.send(JSON.stringify({ type, id, data: { channelId: this.channelId, ...data } }));
    return new Promise((done, failed) => this.#waiting.set(id, { done, failed }));
  }

  async join() {
    this.joined = await this.request('join-channel');
    const { routerRtpCapabilities } = await this.request('get-router-capabilities');
    this.device = await Device.factory();
    await this.device.load({ routerRtpCapabilities });
    this.send = this.#connecting(this.device.createSendTransport(await this.#transport('send')));
    this.receive = this.#connecting(this.device.createRecvTransport(await this.#transport('recv')));
    this.send.on('produce', ({ kind, rtpParameters }, done, fail) => {
      this.request('produce', { transportId: this.send.id, kind, rtpParameters }).then(done, fail);
    });
    await this.produce();
    await this.#hear(this.joined.channelState);
  }

  async #transport(direction) {
    const made = await this.request('create-transport', { direction });
    if (direction === 'send') Object.assign(made.dtlsParameters, this.#handshake);
    return made;
  }

  #connecting(transport) {
    transport.on('connect', ({ dtlsParameters }, done, fail) => {
      this.request('connect-transport', { transportId: transport.id, dtlsParameters }).then(done, fail);
    });
    return transport;
  }

  /** Makes the producer, at join, and pauses it as the library does: the track is muted, packets go on. */
  async produce() {
    this.producer = await this.send.produce({ track: window.crosspatchTrack() });
    this.producer.pause();
  }

  async closeProducer() {
    this.producer.close();
    await this.request('close-producer', { producerId: this.producer.id });
  }

  async restartIce() {
    for (const transport of [this.send, this.receive]) {
      const { iceParameters } = await this.request('restart-ice', { transportId: transport.id });
      await transport.restartIce({ iceParameters });
    }
  }

  /** Consumes anew for every burst of somebody else. */
  async #hear({ currentSpeaker, producerId }) {
    if (currentSpeaker === null || currentSpeaker === this.user) return;
    const { rtpCapabilities } = this.device;
    const reply = await this.request('consume', { producerId, rtpCapabilities });
    const consumer = await this.receive.consume(reply);
    const audio = new Audio();
    audio.srcObject = new MediaStream([consumer.track]);
    audio.play();
    this.consumers.push({ consumer, audio });
  }

  async press(type = 'ptt-start') {
    const reply = await this.request(type);
    this.repliedAt = Date.now();
    if (reply.success) this.producer.resume();
    return reply;
  }

  async release() {
    this.producer.pause();
    return this.request('ptt-stop');
  }

  /** What came in on all consumers together, of those that retired too. */
  async inbound() {
    const sum = { packets: 0, bytes: 0, energy: 0, at: performance.now() };
    for (const report of (await this.receive.getStats()).values()) {
      if (report.type !== 'inbound-rtp') continue;
      sum.packets += report.packetsReceived;
      sum.bytes += report.bytesReceived;
      sum.energy += report.totalAudioEnergy ?? 0;
    }
    return sum;
  }

  close() {
    this.send?.close();
    this.receive?.close();
    this.#socket.close();
  }
}

window.clients = {};

/** Opens a socket of `user` for one channel; `name` is what the test calls it. */
window.openClient = async (name, user, token, channelId, options = {}) => {
  const client = new ExistingClient(channelId, options);
  client.user = user;
  await client.connect(token);
  await client.join();
  window.clients[name] = client;
};
