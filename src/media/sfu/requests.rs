//! What the signaling asks for.

use super::*;

impl Sfu {
    /// Makes a transport for `session`. It does nothing until the client sends its first check.
    ///
    /// # Errors
    ///
    /// The session has too many.
    pub fn create_transport(
        &mut self,
        session: SessionId,
        user: &UserId,
        direction: Direction,
        now: Instant,
    ) -> Result<TransportParameters, SfuError> {
        let own = self.transports.values().filter(|t| t.session == session);
        bounded(own.count(), TRANSPORTS_PER_SESSION, "transports")?;
        self.epoch.get_or_insert(now);
        self.next_tick.get_or_insert(now + TICK);
        let id = self.fresh_id();
        let transport = Transport::new(session, user, direction);
        let ice_parameters = transport.ice.clone();
        self.by_fragment.insert(ice_parameters.username_fragment.clone(), id);
        self.transports.insert(id, transport);
        Ok(TransportParameters {
            id: transport_text(id),
            ice_parameters,
            ice_candidates: self.candidates.clone(),
            dtls_parameters: self.dtls.clone(),
        })
    }

    /// Takes the client's DTLS role and fingerprints, and begins as soon as its address is known.
    ///
    /// # Errors
    ///
    /// No such transport, connected already, or no sha-256 fingerprint.
    pub fn connect_transport(
        &mut self,
        session: SessionId,
        transport_id: &str,
        dtls: &DtlsParameters,
        now: Instant,
        send: SendFn<'_>,
    ) -> Result<(), SfuError> {
        let id = self.own_transport(session, transport_id)?;
        let is_sha_256 = |f: &&Fingerprint| f.algorithm.eq_ignore_ascii_case("sha-256");
        let fingerprint = dtls.fingerprints.iter().find(is_sha_256).ok_or(SfuError::NoFingerprint)?;
        let transport = self.transports.get_mut(&id).expect("invariant: found above");
        if transport.is_connecting() {
            return Err(SfuError::Connected(transport_id.to_owned()));
        }
        let outcome = transport.connect(&self.identity, &fingerprint.value, dtls, now, send);
        self.after_dtls(id, outcome);
        Ok(())
    }

    /// Fresh ICE credentials. The old ones stay valid until the new ones are first used.
    ///
    /// # Errors
    ///
    /// No such transport.
    pub fn restart_ice(&mut self, session: SessionId, transport_id: &str) -> Result<IceParameters, SfuError> {
        let id = self.own_transport(session, transport_id)?;
        let transport = self.transports.get_mut(&id).expect("invariant: found above");
        if let Some(retired) = transport.restart_ice() {
            self.by_fragment.remove(&retired);
        }
        let ice = transport.ice.clone();
        self.by_fragment.insert(ice.username_fragment.clone(), id);
        Ok(ice)
    }

    /// Makes a source of what the client sends. It is heard only through gates that are open for it.
    ///
    /// # Errors
    ///
    /// No such transport, not Opus audio, no SSRC or one in use, or too many producers.
    pub fn produce(
        &mut self,
        session: SessionId,
        transport_id: &str,
        channel: &ChannelId,
        kind: &str,
        rtp: &RtpParameters,
    ) -> Result<SourceId, SfuError> {
        let id = self.own_transport(session, transport_id)?;
        if kind != "audio" {
            return Err(SfuError::NotAudio(kind.to_owned()));
        }
        let announced = rtp.announced().map_err(SfuError::BadParameters)?;
        let own = self.sources.values().filter(|s| s.session == session);
        bounded(own.count(), PRODUCERS_PER_SESSION, "producers")?;
        let ssrc = announced.ssrc;
        let transport = &self.transports[&id];
        if transport.sources.contains_key(&ssrc) {
            return Err(SfuError::SsrcInUse(ssrc));
        }
        let user = transport.user.clone();
        let ever = self.announced.entry(id).or_default();
        if !ever.contains(&ssrc) {
            bounded(ever.len(), SSRCS_PER_TRANSPORT, "ssrcs on one transport")?;
            ever.insert(ssrc);
        }
        let wire = Wire { transport: id, announced, unwrapper: Unwrapper::default() };
        let source = self.new_source(session, &user, Some(channel), Some(wire));
        let transport = self.transports.get_mut(&id).expect("invariant: found above");
        transport.sources.insert(ssrc, source);
        Ok(source)
    }

    /// The newest receiving transport of a session: where a client consumes that names none.
    ///
    /// # Errors
    ///
    /// The session has none.
    pub fn receiving_transport(&self, session: SessionId) -> Result<String, SfuError> {
        let own = self.transports.iter().filter(|(_, t)| t.session == session && t.direction == Direction::Recv);
        own.map(|(id, _)| *id).max().map(transport_text).ok_or(SfuError::NoReceivingTransport)
    }

    /// Lets a client listen to a channel, whoever talks there, or to one participant there. A
    /// second consumer of the same producer on the same transport retires the first.
    ///
    /// # Errors
    ///
    /// No such transport or producer, no Opus, or too many consumers.
    pub fn consume(
        &mut self,
        session: SessionId,
        transport_id: &str,
        channel: &ChannelId,
        producer_id: &str,
        join_rank: u64,
        rtp_capabilities: &RtpCapabilities,
    ) -> Result<ConsumerParameters, SfuError> {
        let id = self.own_transport(session, transport_id)?;
        if !rtp_capabilities.has_opus() {
            return Err(SfuError::NoOpus);
        }
        let only = if producer_id == Self::channel_producer_id(channel) {
            None
        } else {
            let source = producer_id.parse().ok().filter(|source| self.sources.contains_key(source));
            Some(source.ok_or_else(|| SfuError::NoProducer(producer_id.to_owned()))?)
        };
        let earlier = self.transports[&id].consumers.iter();
        let earlier = earlier.filter(|(_, c)| c.producer_id == producer_id && c.channel == *channel);
        if let Some(earlier) = earlier.map(|(number, _)| *number).next() {
            self.remove_consumer(id, earlier);
        }
        let own = self.transports.values().filter(|t| t.session == session);
        bounded(own.map(|t| t.consumers.len()).sum(), CONSUMERS_PER_SESSION, "consumers")?;

        let consumer = self.fresh_id();
        self.next_ssrc = self.next_ssrc.wrapping_add(SSRC_STEP);
        let ssrc = self.next_ssrc;
        let transport = self.transports.get_mut(&id).expect("invariant: found above");
        let mid = transport.next_mid.to_string();
        transport.next_mid += 1;
        let stream = Stream::new(ssrc, mid.clone(), u64::from_ne_bytes(stun::random()));
        let producer_id = producer_id.to_owned();
        let entry = Consumer { producer_id: producer_id.clone(), channel: channel.clone(), stream };
        transport.consumers.insert(consumer, entry);
        self.ears.entry(channel.clone()).or_default().push(Ear {
            session,
            user: transport.user.clone(),
            join_rank,
            only,
            outlet: Outlet::Consumer { transport: id, consumer },
        });
        Ok(ConsumerParameters {
            id: consumer_text(consumer),
            producer_id,
            kind: "audio",
            consumer_type: "simple",
            producer_paused: false,
            rtp_parameters: RtpParameters::to_listener(&mid, ssrc),
        })
    }

    /// Closes a transport with its producers, which are returned, and its consumers.
    ///
    /// # Errors
    ///
    /// No such transport.
    pub fn close_transport(&mut self, session: SessionId, transport_id: &str) -> Result<Vec<SourceId>, SfuError> {
        let id = self.own_transport(session, transport_id)?;
        Ok(self.remove_transport(id))
    }

    /// Closes a producer.
    ///
    /// # Errors
    ///
    /// No such producer.
    pub fn close_producer(&mut self, session: SessionId, producer_id: &str) -> Result<SourceId, SfuError> {
        let missing = || SfuError::NoProducer(producer_id.to_owned());
        let source: SourceId = producer_id.parse().map_err(|()| missing())?;
        let is_own = self.sources.get(&source).is_some_and(|s| s.session == session && s.wire.is_some());
        if !is_own {
            return Err(missing());
        }
        self.remove_source(source);
        Ok(source)
    }

    /// Closes a consumer.
    ///
    /// # Errors
    ///
    /// No such consumer.
    pub fn close_consumer(&mut self, session: SessionId, consumer_id: &str) -> Result<(), SfuError> {
        let missing = || SfuError::NoConsumer(consumer_id.to_owned());
        let consumer = number(consumer_id, 'c').ok_or_else(missing)?;
        let mut own = self.transports.iter().filter(|(_, t)| t.session == session);
        let found = own.find(|(_, t)| t.consumers.contains_key(&consumer)).map(|(id, _)| *id);
        self.remove_consumer(found.ok_or_else(missing)?, consumer);
        Ok(())
    }

    /// Closes everything of a session and returns its sources, local ones too.
    pub fn close_session(&mut self, session: SessionId) -> Vec<SourceId> {
        let own = self.transports.iter().filter(|(_, t)| t.session == session);
        let own: Vec<u64> = own.map(|(id, _)| *id).collect();
        let mut gone: Vec<SourceId> = own.into_iter().flat_map(|id| self.remove_transport(id)).collect();
        gone.extend(self.remove_sources(|source| source.session == session));
        self.ears.retain(|_, ears| {
            ears.retain(|ear| ear.session != session);
            !ears.is_empty()
        });
        gone
    }

    /// Closes the consumers, the local listener and the producers of a session on one channel, and
    /// returns the producers.
    pub fn leave(&mut self, session: SessionId, channel: &ChannelId) -> Vec<SourceId> {
        for transport in self.transports.values_mut().filter(|t| t.session == session) {
            transport.consumers.retain(|_, consumer| consumer.channel != *channel);
        }
        if let Some(ears) = self.ears.get_mut(channel) {
            ears.retain(|ear| ear.session != session);
            if ears.is_empty() {
                self.ears.remove(channel);
            }
        }
        self.remove_sources(|source| source.session == session && source.channel.as_ref() == Some(channel))
    }

    fn own_transport(&self, session: SessionId, text: &str) -> Result<u64, SfuError> {
        let id = number(text, 't').filter(|id| self.transports.get(id).is_some_and(|t| t.session == session));
        id.ok_or_else(|| SfuError::NoTransport(text.to_owned()))
    }

    /// Takes a transport away with all that hangs on it, and returns its sources.
    pub(super) fn remove_transport(&mut self, id: u64) -> Vec<SourceId> {
        let Some(mut transport) = self.transports.remove(&id) else {
            return Vec::new();
        };
        transport.close(|packet, to| self.farewells.push((packet.to_vec(), to)));
        self.by_fragment.retain(|_, owner| *owner != id);
        self.by_address.retain(|_, owner| *owner != id);
        self.announced.remove(&id);
        if let Some(due) = transport.due {
            self.timers.remove(&(due, id));
        }
        for (consumer, entry) in &transport.consumers {
            self.remove_ear(&entry.channel, *consumer);
        }
        let gone: Vec<SourceId> = transport.sources.into_values().collect();
        for source in &gone {
            self.remove_source(*source);
        }
        gone
    }

    fn remove_sources(&mut self, which: impl Fn(&Source) -> bool) -> Vec<SourceId> {
        let gone = self.sources.iter().filter(|(_, source)| which(source));
        let gone: Vec<SourceId> = gone.map(|(id, _)| *id).collect();
        for source in &gone {
            self.remove_source(*source);
        }
        gone
    }

    fn remove_source(&mut self, source: SourceId) {
        let wire = self.sources.remove(&source).and_then(|source| source.wire);
        if let Some(wire) = wire
            && let Some(transport) = self.transports.get_mut(&wire.transport)
        {
            transport.sources.remove(&wire.announced.ssrc);
        }
    }

    fn remove_consumer(&mut self, transport: u64, consumer: u64) {
        let transport = self.transports.get_mut(&transport);
        if let Some(entry) = transport.and_then(|t| t.consumers.remove(&consumer)) {
            self.remove_ear(&entry.channel, consumer);
        }
    }

    fn remove_ear(&mut self, channel: &ChannelId, consumer: u64) {
        if let Some(ears) = self.ears.get_mut(channel) {
            ears.retain(|ear| !ear.is_consumer(consumer));
            if ears.is_empty() {
                self.ears.remove(channel);
            }
        }
    }
}

fn bounded(count: usize, limit: usize, what: &'static str) -> Result<(), SfuError> {
    if count < limit { Ok(()) } else { Err(SfuError::TooMany { what, limit }) }
}
