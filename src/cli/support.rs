//! `crosspatch support-bundle`: everything that somebody far away needs to help, in one file, and no secret.
//!
//! **Invariant:** every text goes through [`Secrets::scrub`] on its way in, whatever it is.

use super::doctor::Place;
use crate::audit;
use crate::base::clock::unix_ms_now;
use crate::doctor::as_text;
use crate::doctor::secrets::Secrets;
use anyhow::Context;
use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A log is cut to its end, in bytes.
const LONGEST: usize = 4_000_000;
/// Files of the state directory whose text is secret.
const SECRET_FILES: &[&str] = &["token.secret", "audit.key", "tls/ca-key.pem", "tls/server.pem"];
/// What the kernel tells that helps to understand a box.
const KERNEL_FILES: &[&str] = &[
    "/proc/version",
    "/proc/cmdline",
    "/proc/device-tree/model",
    "/etc/os-release",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/cpuinfo",
    "/proc/interrupts",
    "/proc/self/mountinfo",
    "/proc/asound/cards",
    "/proc/asound/pcm",
    "/proc/net/dev",
    "/proc/modules",
];
/// What systems tell; a program that is not there is a line that says so.
const COMMANDS: &[(&str, &[&str])] = &[
    ("systemd/status.txt", &["systemctl", "status", "crosspatch", "--no-pager", "--full"]),
    ("systemd/unit.txt", &["systemctl", "show", "crosspatch", "--no-pager"]),
    ("systemd/failed.txt", &["systemctl", "--failed", "--no-pager"]),
    (
        "logs/crosspatch.txt",
        &["journalctl", "--unit", "crosspatch*", "--no-pager", "--output", "short-precise", "--lines", "20000"],
    ),
    ("logs/kernel.txt", &["journalctl", "--dmesg", "--no-pager", "--output", "short-monotonic", "--lines", "5000"]),
    ("kernel/addresses.txt", &["ip", "address"]),
    ("kernel/routes.txt", &["ip", "route"]),
    ("kernel/disks.txt", &["df", "-h"]),
    ("kernel/usb.txt", &["lsusb", "-t"]),
    ("kernel/gpio.txt", &["gpioinfo"]),
    ("kernel/clock.txt", &["timedatectl", "status"]),
];

/// Where to, and of which box.
#[derive(Args)]
pub struct SupportArgs {
    #[command(flatten)]
    place: Place,
    /// The file; crosspatch-support-<time>.tar.gz here by default.
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// A log file to put in, where the gateway does not write to the journal.
    #[arg(long)]
    log: Option<PathBuf>,
}

/// Writes the bundle.
///
/// # Errors
/// If its file cannot be written.
pub fn run(args: &SupportArgs) -> anyhow::Result<()> {
    let stamp: String = audit::iso_8601(unix_ms_now()).chars().filter(char::is_ascii_digit).take(14).collect();
    let name = format!("crosspatch-support-{stamp}");
    let path = args.output.clone().unwrap_or_else(|| format!("{name}.tar.gz").into());
    let unwritten = || format!("{} cannot be written; name another file with --output", path.display());
    let file = std::fs::File::create(&path).with_context(unwritten)?;
    let entries = entries(args);
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for (entry, text) in &entries {
        append(&mut archive, &format!("{name}/{entry}"), text.as_bytes()).with_context(unwritten)?;
    }
    archive.into_inner().and_then(GzEncoder::finish).and_then(|file| file.sync_all()).with_context(unwritten)?;
    println!("{}: {} files", path.display(), entries.len());
    println!(
        "Secrets were taken out. Names of people and what the gateway logged are in it: send it to whom you trust."
    );
    Ok(())
}

fn append(archive: &mut tar::Builder<impl Write>, path: &str, text: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o600);
    header.set_mtime(unix_ms_now() / 1000);
    archive.append_data(&mut header, path, text)
}

/// Every file of the bundle with its text, secrets taken out.
fn entries(args: &SupportArgs) -> Vec<(String, String)> {
    let (state_dir, config) = (args.place.state_dir(), args.place.config_file());
    let config_text = config.as_deref().and_then(|file| std::fs::read_to_string(file).ok());
    let secrets = secrets_of(&state_dir, config_text.as_deref());
    let report = args.place.report();
    let json = serde_json::to_string_pretty(&report).unwrap_or_default();
    let mut entries = vec![
        ("doctor.txt".to_owned(), as_text(&report)),
        ("doctor.json".to_owned(), json),
        ("versions.txt".to_owned(), format!("crosspatch {}\ngateway {}\n", env!("CARGO_PKG_VERSION"), report.version)),
        ("audit-head.json".to_owned(), audit_head(&state_dir)),
        ("state-dir.txt".to_owned(), listing(&state_dir)),
        ("ready.json".to_owned(), told(&state_dir.join("ready.json"))),
    ];
    if let Some(text) = config_text {
        let text = secrets.configuration(&text).unwrap_or_else(|why| why + "\n");
        entries.push(("crosspatch.toml".into(), text));
    }
    if let Some(log) = &args.log {
        entries.push(("logs/file.txt".into(), told(log)));
    }
    entries.extend(KERNEL_FILES.iter().map(|file| {
        let name = file.trim_start_matches('/').replace('/', "-");
        (format!("kernel/{name}.txt"), told(Path::new(file)))
    }));
    entries.extend(COMMANDS.iter().map(|(entry, command)| ((*entry).to_owned(), output(command))));
    for (_, text) in &mut entries {
        *text = secrets.scrub(end_of(text));
    }
    entries
}

/// The secrets that the box has: those of its files, and those of its configuration.
fn secrets_of(state_dir: &Path, config: Option<&str>) -> Secrets {
    let mut secrets = Secrets::default();
    for file in SECRET_FILES {
        // A key in bytes is not text, and no text holds it.
        if let Ok(text) = std::fs::read_to_string(state_dir.join(file)) {
            secrets.learn(&text);
        }
    }
    if let Some(text) = config {
        secrets.learn_configuration(text);
    }
    secrets
}

fn audit_head(state_dir: &Path) -> String {
    match audit::newest_checkpoint(&state_dir.join("audit.sqlite")) {
        Ok(checkpoint) => serde_json::to_string_pretty(&checkpoint).unwrap_or_default(),
        Err(e) => e.to_string(),
    }
}

/// The names and sizes of what is in the state directory, not what is in it.
fn listing(dir: &Path) -> String {
    let mut lines: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let size = entry.metadata().map(|data| data.len()).unwrap_or_default();
        lines.push(format!("{size:>12} {}", entry.file_name().to_string_lossy()));
    }
    lines.sort();
    format!("{}\n{}\n", dir.display(), lines.join("\n"))
}

fn told(file: &Path) -> String {
    match std::fs::read(file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).replace('\0', "\n"),
        Err(e) => format!("{}: {e}\n", file.display()),
    }
}

fn output(command: &[&str]) -> String {
    let Some((program, arguments)) = command.split_first() else { return String::new() };
    match Command::new(program).args(arguments).output() {
        Ok(done) => format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr)),
        Err(e) => format!("{program}: {e}\n"),
    }
}

/// The end of a text that is too long; the newest lines are there.
fn end_of(text: &str) -> &str {
    let mut from = text.len().saturating_sub(LONGEST);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}
