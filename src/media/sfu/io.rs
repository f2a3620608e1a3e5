//! Datagrams and time.

use super::*;

impl Sfu {
    /// Takes one datagram from the network.
    pub fn handle_datagram(&mut self, datagram: &mut [u8], from: SocketAddr, now: Instant, send: SendFn<'_>) {
        self.say_goodbyes(send);
        let kind = Kind::of(datagram);
        if kind == Kind::Stun {
            return self.handle_stun(datagram, from, now, send);
        }
        let Some(&id) = self.by_address.get(&from) else {
            self.dropped.unknown_address += 1;
            return;
        };
        match kind {
            Kind::Stun | Kind::Other => self.dropped.malformed += 1,
            Kind::Dtls => {
                let Some(transport) = self.transports.get_mut(&id) else {
                    return;
                };
                let outcome = transport.handle_dtls(datagram, now, send);
                self.after_dtls(id, outcome);
            }
            Kind::Rtcp => self.handle_rtcp(id, datagram, now),
            Kind::Rtp { ssrc } => self.handle_rtp(id, ssrc, datagram, now, send),
        }
    }

    /// Does what is due; see [`Sfu::next_timeout`].
    pub fn handle_timeout(&mut self, now: Instant, send: SendFn<'_>) {
        self.say_goodbyes(send);
        while let Some((due, id)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.remove(&(due, id));
            if let Some(transport) = self.transports.get_mut(&id) {
                transport.due = None;
                let outcome = transport.drive(now, send);
                self.after_dtls(id, outcome);
            }
        }
        if self.next_tick.is_some_and(|tick| tick <= now) {
            self.end_without_consent(now);
            self.send_reports(now, send);
            self.next_tick = (!self.transports.is_empty()).then_some(now + TICK);
        }
    }

    /// When [`Sfu::handle_timeout`] wants to be called.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(due, _)| *due);
        timer.into_iter().chain(self.next_tick).min()
    }

    fn handle_stun(&mut self, datagram: &[u8], from: SocketAddr, now: Instant, send: SendFn<'_>) {
        let fragment = stun::local_fragment(datagram);
        let owner = fragment.and_then(|f| self.by_fragment.get(&f).map(|id| (*id, f)));
        let checked = owner
            .as_ref()
            .and_then(|(id, fragment)| self.transports.get_mut(id)?.check(datagram, fragment, from, now, send));
        let (Some((id, _)), Some(checked)) = (owner, checked) else {
            self.dropped.bad_stun += 1;
            return;
        };
        if let Some(retired) = checked.retired {
            self.by_fragment.remove(&retired);
        }
        if let Some(forgotten) = checked.forgotten {
            self.by_address.remove(&forgotten);
        }
        if let Some(before) = self.by_address.insert(from, id).filter(|before| *before != id)
            && let Some(transport) = self.transports.get_mut(&before)
        {
            transport.addresses.retain(|at| *at != from);
        }
        if checked.is_new
            && let Some(transport) = self.transports.get_mut(&id)
        {
            let outcome = transport.drive(now, send);
            self.after_dtls(id, outcome);
        }
    }

    fn handle_rtp(&mut self, id: u64, ssrc: u32, datagram: &[u8], now: Instant, send: SendFn<'_>) {
        let Some(transport) = self.transports.get_mut(&id) else {
            return;
        };
        let Some((&source, keys)) = transport.sources.get(&ssrc).zip(transport.keys.as_mut()) else {
            self.dropped.unannounced += 1;
            return;
        };
        let Ok(opened) = keys.open(datagram) else {
            self.dropped.forged += 1;
            return;
        };
        let wire = self.sources.get_mut(&source).and_then(|source| source.wire.as_mut());
        let packet = Packet::parse(opened.as_ref());
        let Some((wire, packet)) = wire.zip(packet) else {
            self.dropped.malformed += 1;
            return;
        };
        if packet.payload_type != wire.announced.payload_type {
            self.dropped.malformed += 1;
            return;
        }
        let frame = Frame {
            payload: packet.payload,
            timestamp: packet.timestamp,
            sequence: wire.unwrapper.unwrap(packet.sequence),
            level: packet.level(wire.announced.level_extension),
        };
        self.forward(source, &frame, now, send);
    }

    fn handle_rtcp(&mut self, id: u64, datagram: &[u8], now: Instant) {
        let transport = self.transports.get_mut(&id);
        let Some((transport, epoch)) = transport.zip(self.epoch) else {
            return;
        };
        let Some(opened) = transport.keys.as_mut().and_then(|keys| keys.open_rtcp(datagram)) else {
            self.dropped.forged += 1;
            return;
        };
        for block in rtcp::report_blocks(opened.as_ref()) {
            let mut streams = transport.consumers.values_mut().map(|consumer| &mut consumer.stream);
            if let Some(stream) = streams.find(|stream| stream.ssrc == block.ssrc) {
                stream.note_report(&block, now, epoch);
            }
        }
    }

    /// Sets the transport's timer, or takes the transport away if its handshake failed.
    pub(super) fn after_dtls(&mut self, id: u64, outcome: Result<(), String>) {
        match outcome {
            Err(reason) => self.fail(id, reason),
            Ok(()) => {
                self.timers.retain(|(_, owner)| *owner != id);
                let due = self.transports.get(&id).and_then(|transport| transport.due);
                self.timers.extend(due.map(|due| (due, id)));
            }
        }
    }

    fn fail(&mut self, id: u64, reason: String) {
        let Some(session) = self.transports.get(&id).map(|transport| transport.session) else {
            return;
        };
        let gone = self.remove_transport(id);
        self.events.extend(gone.into_iter().map(|source| SfuEvent::SourceGone { source }));
        let transport_id = transport_text(id);
        self.events.push_back(SfuEvent::TransportFailed { session, transport_id, reason });
    }

    fn end_without_consent(&mut self, now: Instant) {
        let silent = self.transports.iter().filter(|(_, transport)| transport.lost_consent(now));
        let silent: Vec<u64> = silent.map(|(id, _)| *id).collect();
        for id in silent {
            self.fail(id, "the client has sent no check for 30 s; restart ice or connect anew".to_owned());
        }
    }

    fn send_reports(&mut self, now: Instant, send: SendFn<'_>) {
        let Some(epoch) = self.epoch else {
            return;
        };
        for transport in self.transports.values_mut() {
            let to = transport.listening_at();
            let Some((keys, to)) = transport.keys.as_mut().zip(to) else {
                continue;
            };
            let streams = transport.consumers.values().map(|consumer| &consumer.stream);
            for report in streams.filter_map(|stream| stream.report(now, epoch)) {
                if let Ok(packet) = keys.protect_rtcp(&report) {
                    send(packet.as_ref(), to);
                }
            }
        }
    }

    fn say_goodbyes(&mut self, send: SendFn<'_>) {
        for (packet, to) in self.farewells.drain(..) {
            send(&packet, to);
        }
    }
}
