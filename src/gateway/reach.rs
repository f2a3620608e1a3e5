//! How the box is reached: what its certificate is for and which addresses media clients are told. Follows the box's
//! addresses and clock as they change, since at an event both may come up after the gateway.

use super::Event;
use super::config::{Media, Tls};
use super::media::{Command, MediaHandle};
use crate::base::clock::{Wall, wall_now};
use crate::net::addresses::{self, host_name};
use crate::net::authority::Authority;
use crate::net::pages::Trust;
use crate::net::tls::{self, TlsError};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use tokio_rustls::rustls::ServerConfig;

/// How often addresses and clock are looked at.
const LOOK: Duration = Duration::from_secs(5);
const DAY_S: u64 = 24 * 3600;

/// Addresses of interfaces, with the interfaces' names.
type Found = [(String, IpAddr)];

/// Where media comes in: on the loopback, or as soon as TLS is open to the network everywhere, since phones come by any
/// interface and the box's own browsers by the loopback.
#[must_use]
pub fn media_ip(plain: IpAddr, tls: Option<SocketAddr>) -> IpAddr {
    match tls.map(|at| at.ip()).filter(|ip| !ip.is_loopback()) {
        Some(IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        None => plain,
    }
}

/// Where the gateway listens.
pub struct Reach {
    /// What the configuration says of media.
    pub media: Media,
    /// The media socket's address.
    pub media_address: SocketAddr,
    /// The TLS listener's address.
    pub tls_address: Option<SocketAddr>,
}

impl Reach {
    /// The addresses that media clients are told, the best one first.
    #[must_use]
    pub fn announced(&self, found: &Found) -> Vec<SocketAddr> {
        let (bound, port) = (self.media_address.ip(), self.media_address.port());
        let mut told = self.media.announce.clone();
        if told.is_empty() && bound.is_unspecified() {
            let wanted = |name: &String| self.media.interfaces.is_empty() || self.media.interfaces.contains(name);
            told = self.open(found).filter(|(name, _)| wanted(name)).map(|(_, ip)| *ip).collect();
        }
        // For browsers on the box itself, which need no network.
        told.push(if bound.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { bound });
        told.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
    }

    /// Those at which the TLS listener can be reached, IPv4 first.
    fn open<'a>(&self, found: &'a Found) -> impl Iterator<Item = &'a (String, IpAddr)> {
        let at = self.tls_address.map_or(self.media_address.ip(), |at| at.ip());
        let is_open = move |ip: &IpAddr| if at.is_unspecified() { at.is_ipv6() || ip.is_ipv4() } else { *ip == at };
        let of = move |v6: bool| found.iter().filter(move |(_, ip)| ip.is_ipv6() == v6 && is_open(ip));
        of(false).chain(of(true))
    }

    /// What people are shown: where to go, and what to trust, an authority or a certificate. Null without TLS.
    #[must_use]
    pub fn shown(&self, secure: Option<&Secure>, found: &Found) -> Value {
        let Some((secure, at)) = secure.zip(self.tls_address) else { return Value::Null };
        let mut hosts = secure.preferred.clone();
        if at.ip().is_loopback() {
            hosts.push(at.ip().to_string());
        }
        hosts.extend(self.open(found).map(|(_, ip)| ip.to_string()));
        let url = |host: &String| match host.parse() {
            Ok(ip) => format!("https://{}", SocketAddr::new(ip, at.port())),
            Err(_) => format!("https://{host}:{}", at.port()),
        };
        let origins: Vec<_> = hosts.iter().map(url).collect();
        let (address, authority) = (at.to_string(), secure.authority.is_some());
        json!({ "address": address, "authority": authority, "fingerprint": secure.fingerprint, "origins": origins })
    }

    /// Keeps the certificate, the media addresses and what is shown up to date. Tells when the state of TLS changes.
    pub async fn follow(
        &self,
        mut secure: Option<Secure>,
        mut known: Vec<(String, IpAddr)>,
        media: &MediaHandle,
        shown: watch::Sender<Value>,
        events: &mpsc::Sender<Event>,
    ) -> Infallible {
        let mut looks = tokio::time::interval(LOOK);
        let mut told = secure.as_ref().and_then(Secure::ending);
        loop {
            looks.tick().await;
            let found = addresses::interfaces().unwrap_or_else(|e| {
                tracing::warn!("the system does not tell the box's addresses: {e}");
                known.clone()
            });
            if let Some(secure) = &mut secure {
                let why = secure.renew(&found).err().map(|e| e.to_string()).or_else(|| secure.ending());
                if why != told {
                    told.clone_from(&why);
                    events.send(Event::Part { part: "tls".into(), why }).await.ok();
                }
            }
            if found == known {
                continue;
            }
            let announced = self.announced(&found);
            if announced != self.announced(&known) {
                tracing::info!("media addresses are now {announced:?}");
                media.send(Command::Announce(announced));
            }
            shown.send_replace(self.shown(secure.as_ref(), &found));
            known = found;
        }
    }
}

/// The box's certificate.
pub struct Secure {
    /// None with an own certificate.
    authority: Option<Authority>,
    /// The file of an own certificate, and its end in seconds since 1970.
    own: Option<(PathBuf, u64)>,
    fingerprint: String,
    /// What the configuration or the own certificate names, besides the box's addresses.
    preferred: Vec<String>,
    wall: Wall,
    /// The names, and the day on which they were last looked at.
    current: (BTreeSet<String>, u64),
    config: watch::Sender<Arc<ServerConfig>>,
}

impl Secure {
    /// Reads the own certificate, or reads or makes the local authority in `dir` and its certificate for this box.
    /// `wall` knows the last time the gateway stored.
    ///
    /// # Errors
    /// If a file cannot be used.
    pub fn open(tls: &Tls, dir: &Path, wall: Wall, found: &Found) -> Result<Self, TlsError> {
        let now_s = now_s(&wall);
        if let Some((certificate, key)) = tls.own() {
            let (config, facts) = tls::own(certificate, key, now_s)?;
            return Ok(Secure {
                authority: None,
                own: Some((certificate.to_owned(), facts.ends_s)),
                fingerprint: facts.fingerprint,
                preferred: facts.names.into_iter().filter(|name| !name.starts_with('*')).collect(),
                wall,
                current: (BTreeSet::new(), now_s / DAY_S),
                config: watch::channel(config).0,
            });
        }
        let authority = authority(tls, dir)?;
        if let Some(name) = tls.names.iter().find(|name| !authority.may_vouch_for(name)) {
            return Err(TlsError(format!(
                "the local authority was made before '{name}' was among the names in [tls] and may not vouch for it; take \
                 the name out, use one that ends in .local, or delete the directory {} to have a new authority made, which \
                 every phone must then install",
                dir.display()
            )));
        }
        let names = names(&authority, &tls.names, found);
        let config = authority.server(&names, now_s)?;
        Ok(Secure {
            fingerprint: authority.fingerprint().to_owned(),
            authority: Some(authority),
            own: None,
            preferred: tls.names.clone(),
            wall,
            current: (names, now_s / DAY_S),
            config: watch::channel(config).0,
        })
    }

    /// What to do about an own certificate that ends soon.
    #[must_use]
    pub fn ending(&self) -> Option<String> {
        let (certificate, ends_s) = self.own.as_ref()?;
        tls::ending(certificate, *ends_s, now_s(&self.wall))
    }

    /// SHA-256 of what people are to trust.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whose fingerprint that is.
    #[must_use]
    pub fn owner(&self) -> &'static str {
        if self.authority.is_some() { "the local authority" } else { "the certificate" }
    }

    /// What devices install.
    #[must_use]
    pub fn trust(&self) -> Option<Trust> {
        let certificate = self.authority.as_ref()?.pem().to_owned();
        Some(Trust { certificate, fingerprint: self.fingerprint.clone() })
    }

    /// How to serve, now and after each change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.config.subscribe()
    }

    /// Has a new certificate made when the names have changed; and looks once a day, or when the clock was set by days,
    /// whether it is time.
    fn renew(&mut self, found: &Found) -> Result<(), TlsError> {
        let Some(authority) = &self.authority else { return Ok(()) };
        let now_s = now_s(&self.wall);
        let wanted = (names(authority, &self.preferred, found), now_s / DAY_S);
        if wanted != self.current {
            let config = authority.server(&wanted.0, now_s)?;
            self.config.send_replace(config);
            self.current = wanted;
        }
        Ok(())
    }
}

/// The authority that vouches for this box, made in `dir` if it is not there yet.
///
/// # Errors
/// If the directory cannot be written, or what is in it cannot be used.
pub fn authority(tls: &Tls, dir: &Path) -> Result<Authority, TlsError> {
    Authority::open(dir, &tls.names.iter().cloned().chain(host_name()).collect())
}

/// Everything the box may be called.
fn names(authority: &Authority, configured: &[String], found: &Found) -> BTreeSet<String> {
    let host = host_name();
    // As multicast DNS names it.
    let local = host.as_deref().and_then(|name| name.split('.').next()).map(|label| format!("{label}.local"));
    let own = host.into_iter().chain(local).filter(|name| {
        let may = authority.may_vouch_for(name);
        if !may {
            tracing::debug!("the box was renamed to {name}, which its authority may not vouch for");
        }
        may
    });
    let loopback = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let addresses = found.iter().map(|(_, ip)| ip.to_string());
    let configured = configured.iter().map(|name| name.parse::<IpAddr>().map_or(name.clone(), |ip| ip.to_string()));
    own.chain(loopback).chain(addresses).chain(configured).collect()
}

/// The time in seconds since 1970 by the best knowledge of a box that may have no battery for its clock: when nobody
/// has set it, it is at least as late as the audit's last record and as the making of this program.
pub(crate) fn now_s(wall: &Wall) -> u64 {
    let program = std::env::current_exe().and_then(std::fs::metadata).and_then(|m| m.modified()).ok();
    let made_ms = program.and_then(|t| u64::try_from(t.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok());
    let floor_ms = wall.latest_ms().max(made_ms.unwrap_or(0));
    let by_clock = wall_now();
    if by_clock.synchronised { by_clock.unix_ms / 1000 } else { by_clock.unix_ms.max(floor_ms) / 1000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Vec<(String, IpAddr)> {
        let address = |name: &str, ip: &str| (name.to_owned(), ip.parse().unwrap());
        vec![address("eth0", "192.0.2.7"), address("eth0", "2001:db8::7"), address("wlan0", "198.51.100.7")]
    }

    fn reach(tls: &str, media: Media) -> Reach {
        let tls: SocketAddr = tls.parse().unwrap();
        let ip = media_ip(Ipv4Addr::LOCALHOST.into(), Some(tls));
        Reach { media, media_address: SocketAddr::new(ip, 40000), tls_address: Some(tls) }
    }

    fn told(tls: &str, media: Media) -> Vec<String> {
        reach(tls, media).announced(&found()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn media_is_announced_where_tls_is_open_and_on_the_box_itself() {
        let local = "127.0.0.1:40000";
        assert_eq!(told("127.0.0.1:8443", Media::default()), [local]);
        assert_eq!(told("198.51.100.7:8443", Media::default()), ["198.51.100.7:40000", local]);
        assert_eq!(told("0.0.0.0:8443", Media::default()), ["192.0.2.7:40000", "198.51.100.7:40000", local]);
        let all = ["192.0.2.7:40000", "198.51.100.7:40000", "[2001:db8::7]:40000", local];
        assert_eq!(told("[::]:8443", Media::default()), all);
    }

    #[test]
    fn the_configuration_narrows_what_is_announced() {
        let interfaces = Media { interfaces: vec!["wlan0".into()], ..Media::default() };
        assert_eq!(told("0.0.0.0:8443", interfaces), ["198.51.100.7:40000", "127.0.0.1:40000"]);
        let announce = Media { announce: vec!["203.0.113.1".parse().unwrap()], ..Media::default() };
        assert_eq!(told("0.0.0.0:8443", announce), ["203.0.113.1:40000", "127.0.0.1:40000"]);
    }

    #[test]
    fn the_certificate_follows_the_addresses_and_the_authority_stays() {
        let dir = tempfile::tempdir().unwrap();
        let tls = Tls { names: vec!["gate.local".into()], ..Tls::default() };
        let mut secure = Secure::open(&tls, dir.path(), Wall::default(), &found()).unwrap();
        let (config, fingerprint) = (secure.subscribe(), secure.fingerprint().to_owned());
        secure.renew(&found()).unwrap();
        assert!(!config.has_changed().unwrap(), "nothing has changed");
        secure.renew(&found()[..1]).unwrap();
        assert!(config.has_changed().unwrap(), "an address is gone");
        assert_eq!(Secure::open(&tls, dir.path(), Wall::default(), &found()).unwrap().fingerprint(), fingerprint);

        let shown = reach("0.0.0.0:8443", Media::default()).shown(Some(&secure), &found());
        assert_eq!(
            shown["origins"],
            json!(["https://gate.local:8443", "https://192.0.2.7:8443", "https://198.51.100.7:8443"])
        );
    }

    #[test]
    fn a_name_the_authority_may_not_vouch_for_is_refused_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        Secure::open(&Tls::default(), dir.path(), Wall::default(), &found()).unwrap();
        let tls = Tls { names: vec!["radio.example".into()], ..Tls::default() };
        let told = Secure::open(&tls, dir.path(), Wall::default(), &found()).map(|_| ()).unwrap_err().to_string();
        assert!(told.contains("may not vouch for it; take the name out"), "{told}");
    }
}
