//! The local authority: signs a certificate for this box, which browsers trust once the authority is installed.
//!
//! Made on first start and then kept for good, since every phone that trusts it would have to be touched again. It can
//! vouch for the box's own names only, so that a stolen box cannot impersonate the web to the phones that trust it.
//! The certificate follows the box's names and addresses. This room finds out neither those nor the time.

use super::certificate::{self, Facts};
use super::tls::{TlsError, server_config};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use time::OffsetDateTime;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const DAY_S: u64 = 24 * 3600;
/// 2025-01-01, before any box that runs this was made. The authority begins here whatever the clock says at the first
/// start: a board without a battery clock may believe in 1970, or in the day its image was written.
const BEGINNING_S: u64 = 1_735_689_600;
/// 2049-12-31, the last day that certificates write with two digits of the year, which all devices read.
const END_S: u64 = 2_524_521_600;
/// Browsers refuse certificates that are good for longer.
const LIFETIME_S: u64 = 397 * DAY_S;
/// For phones whose clock is a little slow, or set to the wrong time zone. Not more: the clock of a box that was
/// switched off is behind the true time, so the days that it needs in reserve are those ahead.
const BACKDATED_S: u64 = DAY_S;
/// A box that was in store believes in the day it was switched off, so that much of the lifetime must be left by its
/// own clock. A new certificate only costs those a click who never installed the authority.
const RENEW_BEFORE_S: u64 = 200 * DAY_S;

/// A certificate authority for one box.
pub struct Authority {
    dir: PathBuf,
    pem: String,
    facts: Facts,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Reads the authority in `dir`, or makes one that may vouch for `names`, for everything below `.local`, and for
    /// every address.
    ///
    /// # Errors
    /// If the directory cannot be written, or what is in it cannot be used.
    pub fn open(dir: &Path, names: &BTreeSet<String>) -> Result<Self, TlsError> {
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca-key.pem"));
        if !certificate.exists() {
            make(&certificate, &key, names).map_err(|why| {
                TlsError(format!(
                    "the local authority cannot be made in {}: {why}; make the directory writable, or name another \
                     with --state-dir",
                    dir.display()
                ))
            })?;
        }
        let broken = |path: &Path, why: String| {
            TlsError(format!(
                "the local authority's {} cannot be used: {why}; restore it, or delete the directory {} to have a new \
                 authority made, which every phone must then install",
                path.display(),
                dir.display()
            ))
        };
        let pem = std::fs::read_to_string(&certificate).map_err(|e| broken(&certificate, e.to_string()))?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| broken(&certificate, e.to_string()))?;
        let facts = certificate::facts(&der).map_err(|e| broken(&certificate, e))?;
        let secret = PrivateKeyDer::from_pem_file(&key).map_err(|e| broken(&key, e.to_string()))?;
        let pair = KeyPair::try_from(&secret).map_err(|e| broken(&key, e.to_string()))?;
        server_config(vec![der], secret).map_err(|e| broken(&key, e.to_string()))?; // do they belong together?
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&facts.subject);
        Ok(Authority { dir: dir.to_owned(), pem, facts, issuer: Issuer::new(params, pair) })
    }

    /// The certificate that devices install.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the authority, as devices show it.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.facts.fingerprint
    }

    /// True if clients accept this name or address from the authority.
    #[must_use]
    pub fn may_vouch_for(&self, name: &str) -> bool {
        let below =
            |domain: &String| name.strip_suffix(domain.as_str()).is_some_and(|n| n.is_empty() || n.ends_with('.'));
        name.parse::<IpAddr>().is_ok() || self.facts.permitted.iter().any(below)
    }

    /// How to serve under `names` at the time `now_s` (seconds since 1970): with the certificate that there is, if it
    /// is for these and has long enough to go, or with a new one.
    ///
    /// # Errors
    /// If the certificate cannot be made.
    pub fn server(&self, names: &BTreeSet<String>, now_s: u64) -> Result<Arc<ServerConfig>, TlsError> {
        let path = self.dir.join("server.pem");
        let now_s = now_s.clamp(BEGINNING_S + BACKDATED_S, END_S - LIFETIME_S);
        if let Some(config) = std::fs::read(&path).ok().and_then(|pem| self.kept(&pem, names, now_s)) {
            return Ok(config);
        }
        let failed = |why: String| {
            TlsError(format!("a certificate for this box cannot be made: {why}; check names in [tls] and the clock"))
        };
        let (chain, key, pem) = self.issue(names, now_s).map_err(|e| failed(e.to_string()))?;
        if let Err(e) = write_private(&path, &pem) {
            // It serves all the same; only the next start makes another.
            tracing::error!(
                "the certificate {} cannot be stored ({e}); make room or the directory writable",
                path.display()
            );
        }
        tracing::info!("a new certificate for {}", names.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
        server_config(chain, key).map_err(|e| failed(e.to_string()))
    }

    fn kept(&self, pem: &[u8], names: &BTreeSet<String>, now_s: u64) -> Option<Arc<ServerConfig>> {
        let der = CertificateDer::from_pem_slice(pem).ok()?;
        let facts = certificate::facts(&der).ok()?;
        let is_good = facts.names == *names
            && facts.issuer == self.facts.subject
            && facts.begins_s <= now_s
            && facts.ends_s > now_s + RENEW_BEFORE_S;
        let key = PrivateKeyDer::from_pem_slice(pem).ok().filter(|_| is_good)?;
        server_config(vec![der], key).ok()
    }

    /// A certificate with its key, and both as text.
    fn issue(
        &self,
        names: &BTreeSet<String>,
        now_s: u64,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, String), rcgen::Error> {
        let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
        params.distinguished_name = name("crosspatch");
        params.not_before = time_of(now_s - BACKDATED_S);
        // The last second counts.
        params.not_after = time_of(now_s - BACKDATED_S + LIFETIME_S - 1);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let pem = certificate.pem() + &key.serialize_pem();
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("invariant: the key was written just now");
        Ok((vec![certificate.der().clone()], key, pem))
    }
}

fn make(certificate: &Path, key: &Path, names: &BTreeSet<String>) -> anyhow::Result<()> {
    let dir = certificate.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mut params = CertificateParams::default();
    let mut mark = [0; 4];
    getrandom::fill(&mut mark)?;
    // A mark, since people may trust several boxes and must tell them apart.
    params.distinguished_name = name(&format!("crosspatch box {:08x}", u32::from_be_bytes(mark)));
    params.not_before = time_of(BEGINNING_S);
    params.not_after = time_of(END_S);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let domains = names.iter().filter(|n| n.parse::<IpAddr>().is_err()).map(String::as_str);
    let permitted: BTreeSet<_> = domains.chain(["local", "localhost"]).collect();
    params.name_constraints = Some(rcgen::NameConstraints {
        permitted_subtrees: permitted.iter().map(|n| GeneralSubtree::DnsName((*n).to_owned())).collect(),
        excluded_subtrees: Vec::new(),
    });
    let pair = KeyPair::generate()?;
    let made = params.self_signed(&pair)?;
    // The certificate last: where it is, the key is too.
    write_private(key, &pair.serialize_pem())?;
    write_private(certificate, &made.pem())?;
    Ok(())
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn time_of(unix_s: u64) -> OffsetDateTime {
    i64::try_from(unix_s)
        .ok()
        .and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok())
        .expect("invariant: between the beginning and the end")
}

/// Whole or not at all, also when the power fails, and for nobody else to read.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let part = path.with_extension("part");
    std::fs::remove_file(&part).ok();
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&part, path)?;
    path.parent().map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tokio_rustls::rustls::client::WebPkiServerVerifier;
    use tokio_rustls::rustls::client::danger::ServerCertVerifier;
    use tokio_rustls::rustls::crypto::aws_lc_rs;
    use tokio_rustls::rustls::pki_types::{ServerName, UnixTime};
    use tokio_rustls::rustls::{self, RootCertStore};

    /// 2030-01-01.
    const NOW_S: u64 = 1_893_456_000;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    fn authority(dir: &Path) -> Authority {
        Authority::open(dir, &set(&["gate", "radio.example"])).unwrap()
    }

    fn stored(dir: &Path) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(dir.join("server.pem")).unwrap()
    }

    /// What a client that trusts the authority says of the stored certificate, at a time and under a name.
    fn verified(dir: &Path, name: &str, at_s: u64) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at_s));
        verifier.verify_server_cert(&stored(dir), &[], &ServerName::try_from(name).unwrap(), &[], at).map(drop)
    }

    #[test]
    fn clients_that_trust_the_authority_accept_every_name_of_the_box() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["gate", "gate.local", "localhost", "radio.example", "192.0.2.7", "::1", "127.0.0.1"];
        authority(dir.path()).server(&set(&names), NOW_S).unwrap();
        for name in names {
            verified(dir.path(), name, NOW_S).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        assert!(verified(dir.path(), "192.0.2.8", NOW_S).is_err());
    }

    #[test]
    fn the_authority_cannot_vouch_for_the_rest_of_the_world() {
        let dir = tempfile::tempdir().unwrap();
        let authority = authority(dir.path());
        for (name, may) in [("gate", true), ("sub.radio.example", true), ("x.local", true), ("192.0.2.7", true)] {
            assert_eq!(authority.may_vouch_for(name), may, "{name}");
        }
        for name in ["bank.example", "notlocal", "mygate", "example"] {
            assert!(!authority.may_vouch_for(name), "{name}");
        }
        // Even a certificate that it has signed is refused by clients.
        authority.server(&set(&["bank.example"]), NOW_S).unwrap();
        assert!(verified(dir.path(), "bank.example", NOW_S).is_err());
    }

    #[test]
    fn keys_are_for_nobody_else_and_the_authority_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = authority(dir.path());
        first.server(&set(&["gate"]), NOW_S).unwrap();
        for name in ["ca-key.pem", "server.pem"] {
            let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let again = authority(dir.path());
        assert_eq!((again.fingerprint(), again.pem()), (first.fingerprint(), first.pem()));
    }

    #[test]
    fn a_certificate_is_kept_until_names_change_or_it_nears_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let after = |names: &[&str], at_s| {
            authority(dir.path()).server(&set(names), at_s).unwrap();
            stored(dir.path())
        };
        let first = after(&["gate", "192.0.2.7"], NOW_S);
        assert_eq!(after(&["192.0.2.7", "gate"], NOW_S + 100 * DAY_S), first);
        let moved = after(&["gate", "192.0.2.8"], NOW_S);
        assert_ne!(moved, first);
        let later = NOW_S + LIFETIME_S - RENEW_BEFORE_S;
        let renewed = after(&["gate", "192.0.2.8"], later);
        assert_ne!(renewed, moved);
        // The clock was ahead and has been set right: the certificate is not valid yet.
        assert_ne!(after(&["gate", "192.0.2.8"], NOW_S), renewed);
    }

    #[test]
    fn certificates_are_good_for_397_days_and_a_box_in_1970_makes_one_that_is_valid_later() {
        let dir = tempfile::tempdir().unwrap();
        authority(dir.path()).server(&set(&["gate"]), NOW_S).unwrap();
        let facts = certificate::facts(&stored(dir.path())).unwrap();
        assert_eq!(facts.ends_s - facts.begins_s + 1, LIFETIME_S);
        assert!(verified(dir.path(), "gate", NOW_S - BACKDATED_S).is_ok());
        assert!(verified(dir.path(), "gate", NOW_S - BACKDATED_S - 1).is_err());

        let dir = tempfile::tempdir().unwrap();
        authority(dir.path()).server(&set(&["gate"]), 0).unwrap();
        verified(dir.path(), "gate", BEGINNING_S + 300 * DAY_S).unwrap();
    }

    #[test]
    fn a_damaged_authority_is_told_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let before = authority(dir.path()).pem().to_owned();
        let other = KeyPair::generate().unwrap().serialize_pem();
        std::fs::write(dir.path().join("ca-key.pem"), other).unwrap();
        let error = |dir: &Path| Authority::open(dir, &set(&["gate"])).map(|_| ()).unwrap_err().to_string();
        let told = error(dir.path());
        assert!(told.contains("ca-key.pem cannot be used") && told.contains("restore it, or delete"), "{told}");
        std::fs::remove_file(dir.path().join("ca-key.pem")).unwrap();
        assert!(error(dir.path()).contains("ca-key.pem cannot be used"));
        assert_eq!(std::fs::read_to_string(dir.path().join("ca.pem")).unwrap(), before);
    }
}
