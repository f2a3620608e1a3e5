//! What stands in a certificate, as far as the gateway cares. Judges nothing.

use aws_lc_rs::digest::{SHA256, digest};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{NameConstraints, SubjectAltName};
use x509_cert::name::Name;

/// What a certificate says.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The common name of its owner.
    pub subject: String,
    /// The common name of who signed it.
    pub issuer: String,
    /// The names and addresses it is for.
    pub names: BTreeSet<String>,
    /// Of an authority: the domains it may vouch for.
    pub permitted: BTreeSet<String>,
    /// Not valid before, in seconds since 1970.
    pub begins_s: u64,
    /// Not valid after, in seconds since 1970.
    pub ends_s: u64,
    /// SHA-256, as pairs of hexadecimal digits with colons between them.
    pub fingerprint: String,
}

/// Reads the first certificate in a PEM file.
///
/// # Errors
/// If there is none.
pub fn read(path: &Path) -> Result<Facts, String> {
    let shown = path.display();
    let der = CertificateDer::from_pem_file(path).map_err(|e| format!("{shown} cannot be read ({e})"))?;
    facts(&der).map_err(|why| format!("{shown} cannot be used: {why}"))
}

/// Reads a certificate.
///
/// # Errors
/// If it is none.
pub fn facts(der: &[u8]) -> Result<Facts, String> {
    let read = Certificate::from_der(der).map_err(|e| format!("it is no certificate ({e})"))?;
    let inside = read.tbs_certificate();
    let malformed = |e: x509_cert::der::Error| format!("its extensions are malformed ({e})");
    let names = inside.get_extension::<SubjectAltName>().map_err(malformed)?;
    let constraints = inside.get_extension::<NameConstraints>().map_err(malformed)?;
    let permitted = constraints.and_then(|(_, c)| c.permitted_subtrees).unwrap_or_default();
    Ok(Facts {
        subject: common_name(inside.subject()),
        issuer: common_name(inside.issuer()),
        names: names.iter().flat_map(|(_, names)| &names.0).filter_map(text).collect(),
        permitted: permitted.iter().filter_map(|tree| text(&tree.base)).collect(),
        begins_s: inside.validity().not_before.to_unix_duration().as_secs(),
        ends_s: inside.validity().not_after.to_unix_duration().as_secs(),
        fingerprint: fingerprint(der),
    })
}

fn common_name(name: &Name) -> String {
    name.common_name().ok().flatten().map(|n| n.value().into_owned()).unwrap_or_default()
}

fn text(name: &GeneralName) -> Option<String> {
    if let GeneralName::IpAddress(octets) = name {
        let octets = octets.as_bytes();
        let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
        return v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok().map(|ip| ip.to_string());
    }
    if let GeneralName::DnsName(name) = name { Some(name.to_string()) } else { None }
}

fn fingerprint(der: &[u8]) -> String {
    let hash = digest(&SHA256, der);
    hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}
