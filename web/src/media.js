// The audio of one connection: one transport to send, one to receive; per channel one producer and one consumer.
//
// A producer is made once, at join, so that nothing has to be negotiated when somebody presses a button. While nobody
// talks it has no track and sends nothing; putting the track back needs no negotiation either and takes milliseconds.
import { Device } from 'mediasoup-client';

const CODEC_OPTIONS = { opusStereo: false, opusDtx: false, opusFec: true };

export class Media {
  #request;
  #failed;
  #opening;
  #receive;
  #send;
  #device;
  #track = null;
  #channels = new Map(); // id -> { consumer, producer, track, reasons, switching }

  /** `request` is the signaling's; `failed()` is called when the audio cannot be saved without a new connection. */
  constructor(request, failed) {
    this.#request = request;
    this.#failed = failed;
  }

  /** Starts to receive a channel and, if there is a microphone, gets ready to talk on it. Resolves with its consumer. */
  async join(channelId, producerId) {
    this.#opening ??= this.#open(channelId);
    await this.#opening;
    const channel = { consumer: null, producer: null, track: null, reasons: new Set(), switching: false };
    this.#channels.set(channelId, channel);
    const [consumer] = await Promise.all([this.#consume(channelId, producerId), this.#produce(channelId, channel)]);
    channel.consumer = consumer;
    return consumer;
  }

  leave(channelId) {
    const channel = this.#channels.get(channelId);
    if (!channel) return;
    this.#channels.delete(channelId);
    if (channel.consumer) {
      channel.consumer.close();
      this.#request('close-consumer', { consumerId: channel.consumer.id }).catch(() => {});
    }
    this.#dropProducer(channel);
  }

  /** Changes the microphone of every joined channel; null means listening only. */
  async setTrack(track) {
    this.#track = track;
    for (const [channelId, channel] of this.#channels) {
      this.#dropProducer(channel);
      await this.#produce(channelId, channel);
    }
  }

  /** Sends on a channel as long as there is at least one reason to. */
  send(channelId, reason, on) {
    const channel = this.#channels.get(channelId);
    if (!channel) return;
    if (on) channel.reasons.add(reason);
    else channel.reasons.delete(reason);
    this.#switch(channel);
  }

  consumer(channelId) {
    return this.#channels.get(channelId)?.consumer ?? null;
  }

  producer(channelId) {
    return this.#channels.get(channelId)?.producer ?? null;
  }

  close() {
    for (const channel of this.#channels.values()) channel.track?.stop();
    this.#channels.clear();
    this.#send?.close();
    this.#receive?.close();
  }

  async #open(channelId) {
    const { routerRtpCapabilities } = await this.#request('get-router-capabilities', { channelId });
    this.#device = await Device.factory();
    await this.#device.load({ routerRtpCapabilities });
    const [send, receive] = await Promise.all(
      ['send', 'recv'].map((direction) => this.#request('create-transport', { channelId, direction })),
    );
    this.#send = this.#watch(this.#device.createSendTransport(send));
    this.#receive = this.#watch(this.#device.createRecvTransport(receive));
    this.#send.on('produce', ({ kind, rtpParameters, appData }, done, fail) => {
      const data = { transportId: this.#send.id, kind, rtpParameters, channelId: appData.channelId };
      this.#request('produce', data).then(done, fail);
    });
  }

  #watch(transport) {
    const transportId = transport.id;
    transport.on('connect', ({ dtlsParameters }, done, fail) => {
      this.#request('connect-transport', { transportId, dtlsParameters }).then(done, fail);
    });
    transport.on('connectionstatechange', (state) => {
      if (state === 'failed') this.#failed();
      if (state === 'disconnected') {
        this.#request('restart-ice', { transportId })
          .then(({ iceParameters }) => transport.restartIce({ iceParameters }))
          .catch(() => {}); // if this does not help, the state becomes `failed`
      }
    });
    return transport;
  }

  async #consume(channelId, producerId) {
    const { rtpCapabilities } = this.#device;
    const transportId = this.#receive.id;
    const reply = await this.#request('consume', { channelId, producerId, transportId, rtpCapabilities });
    return this.#receive.consume(reply);
  }

  async #produce(channelId, channel) {
    if (!this.#track || this.#track.readyState !== 'live') return;
    // Every producer needs a track of its own. stopTracks: false, because the track comes and goes with the button.
    const track = this.#track.clone();
    const options = { track, codecOptions: CODEC_OPTIONS, stopTracks: false, appData: { channelId } };
    let producer;
    try {
      producer = await this.#send.produce(options);
    } catch (error) {
      track.stop();
      throw error;
    }
    Object.assign(channel, { track, producer });
    await this.#switch(channel);
  }

  #dropProducer(channel) {
    const { producer, track } = channel;
    Object.assign(channel, { producer: null, track: null });
    track?.stop();
    if (!producer) return;
    producer.close();
    this.#request('close-producer', { producerId: producer.id }).catch(() => {});
  }

  /** Brings what is sent in line with what is wanted, also when that changes meanwhile. */
  async #switch(channel) {
    if (channel.switching) return;
    channel.switching = true;
    try {
      for (;;) {
        const { producer, track, reasons } = channel;
        const wanted = reasons.size > 0 ? track : null;
        if (!producer || producer.closed || producer.track === wanted) break;
        await producer.replaceTrack({ track: wanted });
      }
    } catch {
      // The producer was closed or its microphone ended in between; both are reported elsewhere.
    } finally {
      channel.switching = false;
    }
  }
}
