//! What the box writes on the card for people. Decides words, and touches nothing but the clock.

use super::apply::{FILE, RunsOn};
use super::sheet;
use crate::audit;
use crate::base::clock::wall_now;
use crate::gateway::config::Config;
use crate::gateway::site::Address;
use std::fmt::Write;
use std::net::IpAddr;

/// Where phones will find the box.
#[must_use]
pub fn origin(config: &Config) -> String {
    let port = config.tls.listen.map_or(8443, |at| at.port());
    let fixed = config.networks.iter().find_map(|network| match network.address {
        Address::Fixed(IpAddr::V4(ip), _) => Some(ip.to_string()),
        Address::Fixed(IpAddr::V6(_), _) | Address::Dhcp => None,
    });
    let named = config.tls.names.first().cloned().or(fixed);
    let host = named.or_else(|| Some(format!("{}.local", config.site.hostname.as_ref()?)));
    format!("https://{}:{port}", host.unwrap_or_else(|| "<address of the box>".into()))
}

/// What was taken over. `fingerprint` is of the authority that phones install, if the box has one.
#[must_use]
pub fn applied_note(config: &Config, fingerprint: Option<&str>, changed: &[String], trouble: &[String]) -> String {
    let wall = wall_now();
    let unsure = if wall.synchronised { "" } else { " (by a clock that nobody had set yet)" };
    let networks: Vec<_> = config
        .networks
        .iter()
        .map(|n| format!("{} {}", n.interface.as_deref().unwrap_or("every wired interface:"), n.address))
        .collect();
    let some = |n: usize, one: &str, more: &str| format!("{n} {}", if n == 1 { one } else { more });
    let lines = [
        format!("The box has taken {FILE} over. It runs on it."),
        String::new(),
        format!("When:     {}{unsure}", audit::iso_8601(wall.unix_ms)),
        format!("Version:  crosspatch {}", env!("CARGO_PKG_VERSION")),
        format!("Name:     {}", config.site.hostname.as_deref().unwrap_or("as it was")),
        format!("Network:  {}", if networks.is_empty() { "as it was".into() } else { networks.join(", ") }),
        format!("Event:    {}", config.event.id),
        format!(
            "Holds:    {}, {}, {}, {}",
            some(config.channels.len(), "channel", "channels"),
            some(config.desks.len(), "desk", "desks"),
            some(config.radios.len(), "radio", "radios"),
            some(config.people.len(), "person", "people")
        ),
        match (config.tls.listen, fingerprint) {
            (Some(_), Some(fingerprint)) => {
                format!("Phones:   open {}/trust once\nCompare:  {fingerprint}", origin(config))
            }
            (Some(_), None) => format!("Phones:   come in at {}", origin(config)),
            (None, _) => "Phones:   none can come in; add [tls] with listen = \"0.0.0.0:8443\"".into(),
        },
    ];
    let changed = changed.iter().map(|c| format!("Changed:  {c}"));
    let trouble = trouble.iter().map(|t| format!("But:      {t}"));
    let lines: Vec<_> = lines.into_iter().chain(changed).chain(trouble).collect();
    sheet::for_laptops(&(lines.join("\n") + "\n"))
}

/// What is wrong, and what the box runs on.
#[must_use]
pub fn errors_note(errors: &[String], runs_on: RunsOn) -> String {
    let count = if errors.len() == 1 { "an error".into() } else { format!("{} errors", errors.len()) };
    let mut text = format!("{FILE} has {count} and was not taken over. {}\n\n", runs_on.in_words());
    for error in errors {
        let place = error.split_once(':').and_then(|(_, rest)| rest.split_once(": "));
        let line = match place {
            Some((line, sentence)) if line.bytes().all(|b| b.is_ascii_digit()) => format!("line {line}: {sentence}"),
            Some(_) | None => error.clone(),
        };
        writeln!(text, "{line}").expect("writing to a string works");
    }
    text += "\nCorrect it here, put the card back, switch the box on. This note goes when the file is good.\n";
    sheet::for_laptops(&text)
}
