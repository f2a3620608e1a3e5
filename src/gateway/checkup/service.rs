//! Addresses, ports, certificate and audit, as they are now.

use super::{Checkup, Held};
use crate::audit::{self, Trust};
use crate::doctor::facts::{Audit, Certificate, Network, Port, PortState};
use crate::gateway::config::{Config, Media};
use crate::gateway::reach::{self, Reach};
use crate::net::{addresses, certificate, tls};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

impl Checkup {
    fn tls_address(&self, config: Option<&Config>, held: Option<&Held>) -> Option<SocketAddr> {
        match held {
            Some(held) => held.tls,
            None => self.listen_tls.or(config.and_then(|config| config.tls.listen)),
        }
    }

    pub(super) fn network(&self, config: Option<&Config>, held: Option<&Held>) -> Network {
        let Some(tls) = self.tls_address(config, held) else { return Network::default() };
        let found = addresses::interfaces().unwrap_or_default();
        let media_ip = reach::media_ip(self.listen.ip(), Some(tls));
        let media_address = held.map_or(SocketAddr::new(media_ip, self.media_port), |held| held.media);
        let media: Media = config.map(|config| config.media.clone()).unwrap_or_default();
        let reach = Reach { media, media_address, tls_address: Some(tls) };
        let told = reach.announced(&found).into_iter().filter(|at| !at.ip().is_loopback());
        let shown = held.and_then(|held| held.shown["origins"].as_array());
        let origins = match shown {
            Some(shown) => shown.iter().filter_map(|origin| origin.as_str().map(str::to_owned)).collect(),
            None => found.iter().map(|(_, ip)| format!("https://{}", SocketAddr::new(*ip, tls.port()))).collect(),
        };
        Network {
            tls: Some(tls.to_string()),
            addresses: found.iter().map(|(name, ip)| (name.clone(), ip.to_string())).collect(),
            media: told.map(|at| at.to_string()).collect(),
            origins,
        }
    }

    pub(super) fn ports(&self, config: Option<&Config>, held: Option<&Held>) -> Vec<Port> {
        let tls = self.tls_address(config, held);
        let media = held.map_or_else(
            || SocketAddr::new(reach::media_ip(self.listen.ip(), tls), self.media_port),
            |held| held.media,
        );
        let tcp = |at: SocketAddr| TcpListener::bind(at).map(drop);
        let udp = |at: SocketAddr| UdpSocket::bind(at).map(drop);
        let state = |at: SocketAddr, is_udp: bool| match held {
            Some(_) => PortState::Ours,
            None => match if is_udp { udp(at) } else { tcp(at) } {
                Ok(()) => PortState::Free,
                Err(e) if e.kind() == ErrorKind::AddrInUse => PortState::Taken(self.machine.holder(is_udp, at.port())),
                Err(e) => PortState::Refused(e.to_string()),
            },
        };
        let port = |what: &str, at: SocketAddr, is_udp: bool| Port {
            what: what.into(),
            address: format!("{} {at}", if is_udp { "UDP" } else { "TCP" }),
            state: state(at, is_udp),
        };
        let mut ports = vec![port("pages on this machine", self.listen, false), port("media", media, true)];
        ports.extend(tls.map(|at| port("pages on the network", at, false)));
        ports
    }

    pub(super) fn certificate(&self, config: Option<&Config>, held: Option<&Held>, now_s: u64) -> Option<Certificate> {
        let tls = &config?.tls;
        if let Some((file, key)) = tls.own() {
            return Some(match tls::own(file, key, now_s) {
                Ok((_, facts)) => of_facts(&facts, false),
                Err(e) => Certificate { fault: Some(e.to_string()), ..Certificate::default() },
            });
        }
        self.tls_address(config, held)?;
        let dir = self.state_dir.join("tls");
        if !dir.join("ca.pem").exists() {
            return Some(Certificate { own_authority: true, to_be_made: true, ..Certificate::default() });
        }
        let failed = |why: String| {
            let remedy = "look as root; if it is broken, restore it from a backup";
            Some(Certificate { own_authority: true, fault: Some(format!("{why}; {remedy}")), ..Certificate::default() })
        };
        let (authority, served) =
            match (certificate::read(&dir.join("ca.pem")), certificate::read(&dir.join("server.pem"))) {
                (Ok(authority), Ok(served)) => (authority, served),
                // The gateway makes a new one at its next start.
                (Ok(authority), Err(_)) if held.is_none() => (authority.clone(), authority),
                (Err(why), _) | (_, Err(why)) => return failed(why),
            };
        let mut facts = of_facts(&authority, true);
        facts.missing = held.map(|_| self.not_vouched_for(&served.names, held)).unwrap_or_default();
        facts.names = served.names.into_iter().collect();
        Some(facts)
    }

    /// What people open that the certificate is not for.
    fn not_vouched_for(&self, names: &BTreeSet<String>, held: Option<&Held>) -> Vec<String> {
        let origins = held.and_then(|held| held.shown["origins"].as_array()).into_iter().flatten();
        let hosts = origins.filter_map(|origin| {
            let host = origin.as_str()?.strip_prefix("https://")?;
            let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
            Some(host.trim_start_matches('[').trim_end_matches(']').to_owned())
        });
        hosts.filter(|host| !names.contains(host)).collect()
    }
}

fn of_facts(facts: &certificate::Facts, own_authority: bool) -> Certificate {
    Certificate {
        own_authority,
        begins_s: facts.begins_s,
        ends_s: facts.ends_s,
        ends: audit::iso_8601(facts.ends_s * 1000).chars().take(10).collect(),
        names: facts.names.iter().cloned().collect(),
        ..Certificate::default()
    }
}

/// Reads the whole audit and follows its chain; nothing if there is none yet.
pub(super) fn audit(file: &Path) -> Option<Result<Audit, String>> {
    if !file.exists() {
        return None;
    }
    let verdict = match audit::verify(file, &Trust::default()) {
        Ok(verdict) => verdict,
        Err(e) => return Some(Err(e.to_string())),
    };
    Some(Ok(Audit {
        last_seq: verdict.last_seq,
        checkpoints: verdict.checkpoints,
        broken: verdict.broken.map(|broken| broken.why),
        notes: verdict.notes,
    }))
}
