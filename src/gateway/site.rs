//! `[box]`, `[[network]]` and `[[person]]`: what a box is besides the gateway, so that one file says all of it.
//!
//! Decides whether that makes sense; `crosspatch provision` carries it out. The gateway itself uses none of it.

use super::knobs;
use crate::base::Role;
use crate::net::addresses;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Lies beside the configuration while a newer one is refused, and says why.
pub const REFUSED: &str = "refused.txt";

/// Why a newer configuration than this file was refused.
#[must_use]
pub fn refused(config_file: &Path) -> Option<String> {
    let why = std::fs::read_to_string(config_file.with_file_name(REFUSED)).ok()?;
    Some(why.trim_end().to_owned())
}

/// Lies in the state directory while this boot has not installed the version that is kept there, and says why.
pub const NOT_GIVEN: &str = "update/not-given.txt";

/// Why this boot has not installed the version that is kept in a state directory.
#[must_use]
pub fn not_given(state_dir: &Path) -> Option<String> {
    let why = std::fs::read_to_string(state_dir.join(NOT_GIVEN)).ok()?;
    Some(why.trim_end().to_owned())
}

/// `[box]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Site {
    /// The box's name on the network; without one it stays as it is.
    pub hostname: Option<String>,
    /// True to have a link for each person written beside the file. Whoever has a link may talk as that person.
    pub join_links: bool,
    /// How many days these links are good for.
    #[schemars(range(min = 1, max = 366))]
    pub join_links_days: u64,
}

impl Default for Site {
    fn default() -> Self {
        Site { hostname: None, join_links: false, join_links_days: 14 }
    }
}

/// `[[network]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The interface as the kernel names it, such as `eth0`; without one every wired interface.
    pub interface: Option<String>,
    /// `"dhcp"`, or a fixed address such as `"192.168.10.5/24"`.
    #[schemars(with = "String")]
    pub address: Address,
    /// The router, for a fixed address.
    pub gateway: Option<IpAddr>,
    /// Name servers, for a fixed address.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// True if the box gives addresses to others: where there is no router, only a switch or an access point.
    #[serde(default)]
    pub serve_dhcp: bool,
}

/// Where an interface's address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Whoever gives addresses in that network.
    Dhcp,
    /// A fixed one, and how many of its leading bits are the network's.
    Fixed(IpAddr, u8),
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let text = String::deserialize(value)?;
        let wrong = || {
            serde::de::Error::custom(format!(
                "'{text}' is no address with its network; write \"dhcp\", or such as \"192.168.10.5/24\""
            ))
        };
        if text == "dhcp" {
            return Ok(Address::Dhcp);
        }
        let (ip, bits) = text.split_once('/').ok_or_else(wrong)?;
        let (ip, bits): (IpAddr, u8) = (ip.parse().map_err(|_| wrong())?, bits.parse().map_err(|_| wrong())?);
        let most = if ip.is_ipv4() { 30 } else { 126 };
        if (1..=most).contains(&bits) { Ok(Address::Fixed(ip, bits)) } else { Err(wrong()) }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Dhcp => f.write_str("dhcp"),
            Address::Fixed(ip, bits) => write!(f, "{ip}/{bits}"),
        }
    }
}

/// `[[person]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// The participant's id, as in tokens.
    pub id: String,
    /// The name people see.
    pub name: String,
    /// Dispatch has priority and may start an emergency broadcast.
    #[serde(default = "general")]
    pub role: Role,
    /// Channels the person may join; all of the file's by default.
    pub channels: Option<Vec<String>>,
}

fn general() -> Role {
    Role::General
}

impl Site {
    /// Tells every error with a value that stands near it.
    pub(super) fn check(&self, mut wrong: impl FnMut(Option<&str>, String)) {
        let is_label = |name: &str| {
            (1..=63).contains(&name.len())
                && !name.starts_with('-')
                && !name.ends_with('-')
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && addresses::is_host_name(name)
        };
        if let Some(name) = self.hostname.as_deref().filter(|name| !is_label(name)) {
            wrong(
                Some(name),
                format!("'{name}' is no host name; use small letters, digits and hyphens, such as \"gate-1\""),
            );
        }
        for sentence in knobs::out_of_range(self, "the box") {
            wrong(None, sentence);
        }
    }
}

/// Tells every error with a value that stands near it.
pub(super) fn check_networks(networks: &[Network], mut wrong: impl FnMut(Option<&str>, String)) {
    let mut seen = BTreeSet::new();
    for network in networks {
        let written = network.address.to_string();
        let near = network.interface.as_deref().unwrap_or(&written);
        let mut say = |sentence: String| wrong(Some(near), sentence);
        if !seen.insert(network.interface.as_deref()) {
            let which = network.interface.as_deref().unwrap_or("every wired interface");
            say(format!("there are two [[network]] for {which}; give each an interface of its own"));
        }
        let is_name = |name: &String| {
            (1..=15).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        };
        if network.interface.as_ref().is_some_and(|name| !is_name(name)) {
            say(format!("'{near}' is no interface; `ip link` lists them, such as \"eth0\""));
        }
        match network.address {
            Address::Dhcp if network.gateway.is_some() || !network.dns.is_empty() => {
                say("gateway and dns belong to a fixed address; take them out, or give one in address".into());
            }
            Address::Dhcp if network.serve_dhcp => {
                say("serve_dhcp needs a fixed address; give one, such as address = \"192.168.10.1/24\"".into());
            }
            Address::Fixed(IpAddr::V6(_), _) if network.serve_dhcp => {
                say("serve_dhcp gives IPv4 addresses; give the box an IPv4 address of its own".into());
            }
            Address::Dhcp => {}
            Address::Fixed(ip, bits) => {
                let unusable = match ip {
                    IpAddr::V4(v4) => !is_usable(v4, bits),
                    IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast() || v6.is_loopback(),
                };
                if unusable {
                    say(format!(
                        "{written} is no address that a box can have; 192.168.10.1/24 to 192.168.10.254/24 are some"
                    ));
                } else if network.gateway.is_some_and(|gateway| !same_network(ip, gateway, bits)) {
                    say(format!(
                        "the gateway is not in the network of {written}; give one that is, or another address"
                    ));
                }
            }
        }
    }
}

/// Neither the network's own address nor its broadcast address, nor one that nobody can have.
fn is_usable(ip: Ipv4Addr, bits: u8) -> bool {
    let host = u32::from(ip) & (u32::MAX >> bits);
    host != 0 && host != u32::MAX >> bits && !ip.is_loopback() && !ip.is_multicast() && ip.octets()[0] != 0
}

fn same_network(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    match (one, other) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)) >> (32 - bits) == 0 && a != b,
        // An IPv6 router is often known by its link-local address.
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            a != b && (b.is_unicast_link_local() || (u128::from(a) ^ u128::from(b)) >> (128 - bits) == 0)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// Tells every error with a value that stands near it. `taken` are the users of desks and radios.
pub(super) fn check_people(
    people: &[Person],
    known: impl Fn(&str) -> bool,
    taken: &BTreeSet<&str>,
    mut wrong: impl FnMut(Option<&str>, String),
) {
    let mut seen = BTreeSet::new();
    for person in people {
        let id = person.id.as_str();
        if id.trim().is_empty() || id.chars().any(char::is_control) || id.len() > 64 {
            wrong(Some(id), format!("'{id}' is no id of a person; use 1 to 64 letters, such as \"anna\""));
        }
        if !seen.insert(id) {
            wrong(Some(id), format!("person '{id}' is there twice; give each person an id of their own"));
        }
        if taken.contains(id) {
            wrong(Some(id), format!("'{id}' is a desk or radio; give the person an id of their own"));
        }
        for channel in person.channels.iter().flatten().filter(|channel| !known(channel)) {
            wrong(
                Some(channel),
                format!("there is no channel '{channel}' for person '{id}'; name one of the [[channel]] ids"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::gateway::config::Config;

    const EVENT: &str = "[event]\nid = \"e\"\n[[channel]]\nid = \"ops\"\nname = \"Ops\"\n";

    fn errors(text: &str) -> String {
        match Config::parse(&format!("{EVENT}{text}"), "x.toml") {
            Ok(_) => String::new(),
            Err(e) => e.0.join("\n"),
        }
    }

    #[test]
    fn errors_of_a_box_name_their_line_and_a_remedy() {
        let cases = [
            ("[box]\nhostname = \"Gate 1\"", "x.toml:7: 'Gate 1' is no host name; use small letters"),
            ("[box]\njoin_links_days = 0", "join_links_days of the box is 0; use 1 to 366"),
            ("[box]\nhost = \"a\"", "x.toml:7: unknown field `host`"),
            (
                "[[network]]\naddress = \"192.168.1.300/24\"",
                "x.toml:7: '192.168.1.300/24' is no address with its network",
            ),
            ("[[network]]\naddress = \"192.168.1.5\"", "write \"dhcp\", or such as"),
            ("[[network]]\naddress = \"192.168.1.0/24\"", "x.toml:7: 192.168.1.0/24 is no address that a box can have"),
            ("[[network]]\naddress = \"192.168.1.255/24\"", "is no address that a box can have"),
            (
                "[[network]]\naddress = \"192.168.1.5/24\"\ngateway = \"192.168.2.1\"",
                "x.toml:7: the gateway is not in the network of 192.168.1.5/24",
            ),
            ("[[network]]\naddress = \"dhcp\"\ngateway = \"192.168.2.1\"", "gateway and dns belong to a fixed address"),
            ("[[network]]\naddress = \"dhcp\"\nserve_dhcp = true", "serve_dhcp needs a fixed address"),
            (
                "[[network]]\naddress = \"dhcp\"\n[[network]]\naddress = \"dhcp\"",
                "two [[network]] for every wired interface",
            ),
            ("[[network]]\ninterface = \"eth 0\"\naddress = \"dhcp\"", "x.toml:7: 'eth 0' is no interface"),
            (
                "[[person]]\nid = \"anna\"\nname = \"Anna\"\nchannels = [\"bar\"]",
                "x.toml:9: there is no channel 'bar' for person 'anna'",
            ),
            ("[[person]]\nid = \"a\"\nname = \"A\"\n[[person]]\nid = \"a\"\nname = \"A\"", "person 'a' is there twice"),
            ("[[desk]]\nuser = \"d\"\nname = \"D\"\n[[person]]\nid = \"d\"\nname = \"A\"", "'d' is a desk or radio"),
        ];
        for (text, told) in cases {
            let errors = errors(text);
            assert!(errors.contains(told), "{text}: {errors}");
        }
    }

    #[test]
    fn a_whole_box_fits_in_one_file() {
        let text = "[box]\nhostname = \"gate-1\"\njoin_links = true\n\
            [tls]\nlisten = \"0.0.0.0:8443\"\n[[network]]\naddress = \"192.168.1.5/24\"\ngateway = \"192.168.1.1\"\ndns = [\"9.9.9.9\"]\n\
            [[network]]\ninterface = \"eth1\"\naddress = \"fd00::5/64\"\ngateway = \"fe80::1\"\n\
            [[person]]\nid = 'anna'\nname = \"Anna\"\nrole = \"dispatch\"\nchannels = [\"ops\"]\n";
        assert_eq!(errors(text), "");
    }
}
