//! `crosspatch doctor` and `support-bundle` as a technician runs them: with a gateway, without one, and with a box on
//! which one thing is broken at a time.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "native/mod.rs"]
mod native;

use anyhow::{Context, Result, ensure};
use native::doctor::Told;
use native::gateway::{Gateway, binary};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const EVENT: &str = "[event]\nid = \"e\"\n[[channel]]\nid = \"ops\"\nname = \"Operations\"\n";
/// How long what is waited for may take; generous, since machines are busy.
const SOON: Duration = Duration::from_secs(30);

fn doctor(state_dir: &Path, arguments: &[&str]) -> Result<Told> {
    Told::by(Command::new(binary()).args(["doctor", "--json", "--state-dir"]).arg(state_dir).args(arguments))
}

/// Examines a box without a gateway, with this configuration and free ports.
fn alone(dir: &Path, config: &str, arguments: &[&str]) -> Result<Told> {
    let file = dir.join("event.toml");
    std::fs::write(&file, config)?;
    let file = file.to_str().context("a path in UTF-8")?;
    let ports = ["--config", file, "--listen", "127.0.0.1:0", "--media-port", "0"];
    // A later option of a test takes the place of these.
    let own: Vec<_> = ports.chunks(2).filter(|pair| !arguments.contains(&pair[0])).flatten().copied().collect();
    doctor(dir, &[&own, arguments].concat())
}

async fn post(gateway: &Gateway, path: &str, body: &Value) -> Result<()> {
    let (status, answer) = gateway.call("", &format!("POST {path}"), &body.to_string()).await?;
    ensure!(status == 200, "{path} answered {status} {answer}");
    Ok(())
}

#[tokio::test]
async fn a_running_gateway_says_how_it_is_and_what_breaks_while_it_runs() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let told = doctor(gateway.state_dir(), &[])?;
    ensure!(told.by_gateway);
    told.passes(&["gateway", "versions", "configuration", "pins", "disk", "ports", "audit"])?;
    post(&gateway, "/api/sim/chip", &json!({ "present": false })).await?;
    let began = Instant::now();
    // What the gateway shows of itself is made anew 20 times a second.
    loop {
        let told = doctor(gateway.state_dir(), &[])?;
        told.fails("pins", "it is not there now")?;
        match told.fails("gateway", "the simulated chip is unplugged; plug it in") {
            Ok(()) => break,
            Err(e) => ensure!(began.elapsed() < SOON, e),
        }
    }
    post(&gateway, "/api/sim/chip", &json!({ "present": true })).await?;
    post(&gateway, "/api/sim/lines/desk.ptt.ops", &json!({ "active": true })).await?;
    doctor(gateway.state_dir(), &[])?.fails("pins", "desk.ptt.ops (PTT of Operations) is active though nobody")
}

#[tokio::test]
async fn who_is_not_on_this_machine_is_told_nothing_without_an_admins_token() -> Result<()> {
    let gateway = Gateway::demo().await?;
    // As who comes in by the box's name.
    let status = |what: &str, token: &str| -> Result<u16> {
        let mut stream = TcpStream::connect(gateway.http())?;
        let head = "Host: gate-1.local\r\nConnection: close\r\nContent-Length: 0";
        write!(stream, "{what} HTTP/1.1\r\n{head}\r\nAuthorization: Bearer {token}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split(' ').nth(1).context("no status")?.parse()?)
    };
    let (general, admin) = (gateway.token("anna", "general", "ops")?, gateway.token("ada", "admin", "ops")?);
    for what in ["GET /api/doctor", "GET /api/doctor/lines", "POST /api/doctor/lamps/desk.lamp.ops"] {
        let told = [status(what, "")?, status(what, &general)?, status(what, &admin)?];
        ensure!(told[0] == 401 && told[1] == 403 && ![401, 403].contains(&told[2]), "{what}: {told:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_configuration_that_was_changed_under_a_running_gateway_is_found() -> Result<()> {
    let gateway = Gateway::with_config(EVENT).await?;
    doctor(gateway.state_dir(), &[])?.passes(&["versions"])?;
    std::fs::write(gateway.state_dir().join("event.toml"), EVENT.replace("Operations", "Ops"))?;
    doctor(gateway.state_dir(), &[])?.fails("versions", "was changed after the gateway read it")
}

#[test]
fn a_gateway_of_another_version_is_to_be_restarted() -> Result<()> {
    let dir = TempDir::new()?;
    // What it would be that was not restarted after an update.
    let lock = std::fs::File::create(dir.path().join("lock"))?;
    lock.lock()?;
    let door = TcpListener::bind("127.0.0.1:0")?;
    std::fs::write(dir.path().join("ready.json"), json!({ "http": door.local_addr()?.to_string() }).to_string())?;
    let gateway = std::thread::spawn(move || -> Result<()> {
        let (mut stream, _) = door.accept()?;
        for line in BufReader::new(&stream).lines() {
            if line?.is_empty() {
                break;
            }
        }
        let report = json!({ "at": "", "version": "0.0.1", "by_gateway": true, "checks": [] });
        Ok(write!(stream, "HTTP/1.1 200 OK\r\n\r\n{report}")?)
    });
    let told = doctor(dir.path(), &[])?;
    gateway.join().expect("it answers")?;
    told.fails("versions", "the gateway is crosspatch 0.0.1")?;
    told.fails("versions", "systemctl restart crosspatch")
}

#[tokio::test]
async fn a_walk_through_a_running_gateway_is_confirmed_by_real_edges() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let mut walk = Command::new(binary())
        .args(["doctor", "--walk", "--state-dir"])
        .arg(gateway.state_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut answers = walk.stdin.take().context("no input")?;
    let mut screen = BufReader::new(walk.stdout.take().context("no output")?);
    let (mut shown, mut byte) = (String::new(), [0]);
    let begun = Instant::now();
    // Prompts have no end of line: they are read letter by letter.
    while screen.read(&mut byte)? == 1 {
        ensure!(begun.elapsed() < SOON * 4, "{shown}");
        shown.push(char::from(byte[0]));
        let line = shown.lines().last().unwrap_or_default().to_owned();
        // An answer that is not typed at a terminal ends no line.
        let name = line.rsplit("/12  ").next().and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
        if line.ends_with("(Enter leaves it out) ") {
            for active in [true, false] {
                post(&gateway, &format!("/api/sim/lines/{name}"), &json!({ "active": active })).await?;
            }
        } else if line.ends_with("(y, n, a = again, Enter leaves it out) ") {
            let lines = gateway.get("/api/sim/lines").await?;
            let lit = lines.as_array().context("no lines")?.iter().any(|l| l["name"] == *name && l["active"] == true);
            // The end of a press before may have darkened it: as a person would, look again.
            writeln!(answers, "{}", if lit { "y" } else { "a" })?;
        }
    }
    walk.wait()?;
    ensure!(shown.contains("pass  buttons         6 of 6 tried and well"), "{shown}");
    ensure!(shown.contains("pass  lamps           5 of 6 tried and well"), "{shown}");
    ensure!(shown.contains("radio.vhf.ptt was left out: it keys a transmitter"), "{shown}");
    Ok(())
}

#[test]
fn a_wrong_board_a_missing_card_and_a_wrong_configuration_are_named() -> Result<()> {
    let dir = TempDir::new()?;
    let board = format!(
        "board = \"rpi-4b\"\n{EVENT}[[desk]]\nuser = \"d\"\nname = \"Desk 1\"\ncapture_pcm = \"plughw:CARD=Nowhere\"\n\
         [[desk.button]]\nchannel = \"ops\"\nptt_line = \"button.1\"\n\
         [[radio]]\nid = \"vhf\"\nuser = \"r\"\nname = \"VHF\"\nchannel = \"ops\"\ncard = \"usb:9-9\"\n"
    );
    let told = alone(dir.path(), &board, &[])?;
    let (outcome, found) = &told.checks["board"];
    ensure!(outcome == "fail" || found.contains("has the chip"), "{outcome}: {found}");
    told.fails("sound cards", "Desk 1 microphone: sound device 'plughw:CARD=Nowhere' is not there")?;
    told.fails("sound cards", "VHF receive: the card 'usb:9-9' is not plugged in; plug it in")?;
    let told = alone(dir.path(), &EVENT.replace("id = \"ops\"", "idd = \"ops\""), &[])?;
    told.fails("configuration", "event.toml:4: unknown field `idd`")
}

#[test]
fn a_port_of_somebody_else_is_named_with_its_program() -> Result<()> {
    let dir = TempDir::new()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let told = alone(dir.path(), EVENT, &["--listen", &address])?;
    told.fails("ports", &format!("TCP {address} for pages on this machine is taken by"))?;
    told.fails("ports", &format!("(process {})", std::process::id()))?;
    drop(taken);
    alone(dir.path(), EVENT, &["--listen", &address])?.passes(&["ports"])
}

#[test]
fn an_expired_certificate_is_named_with_its_day() -> Result<()> {
    let dir = TempDir::new()?;
    let mut params = rcgen::CertificateParams::new(vec!["gate.example".to_owned()])?;
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    let key = rcgen::KeyPair::generate()?;
    std::fs::write(dir.path().join("own.pem"), params.self_signed(&key)?.pem())?;
    std::fs::write(dir.path().join("own.key"), key.serialize_pem())?;
    let tls = "[tls]\nlisten = \"127.0.0.1:0\"\ncertificate = \"own.pem\"\nkey = \"own.key\"\n";
    let told = alone(dir.path(), &format!("{EVENT}{tls}"), &[])?;
    told.fails("certificate", "is expired since 2021-01-01; renew it")
}

#[tokio::test]
async fn a_changed_record_is_found_when_no_gateway_runs() -> Result<()> {
    let dir = TempDir::new()?;
    let gateway = Gateway::demo_in(dir.path()).await?;
    gateway.audited("action = 'system.start'").await?;
    let state = TempDir::new()?;
    for file in ["audit.sqlite-head", "audit.sqlite", "audit.sqlite-wal"] {
        let from = gateway.state_dir().join(file);
        if from.exists() {
            std::fs::copy(from, state.path().join(file))?;
        }
    }
    alone(state.path(), EVENT, &[])?.passes(&["audit"])?;
    let db = rusqlite::Connection::open(state.path().join("audit.sqlite"))?;
    let triggers: Vec<String> = {
        let mut names = db.prepare("SELECT name FROM sqlite_master WHERE type = 'trigger'")?;
        names.query_map((), |row| row.get(0))?.collect::<rusqlite::Result<_>>()?
    };
    for name in triggers {
        db.execute_batch(&format!("DROP TRIGGER \"{name}\""))?;
    }
    db.execute("UPDATE audit SET actor = 'somebody else' WHERE seq = 1", ())?;
    drop(db);
    alone(state.path(), EVENT, &[])?.fails("audit", "its chain is broken: record 1 (")
}

/// A small disk of its own; gone when this is dropped.
struct SmallDisk(TempDir);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(self.0.path()).status().ok();
    }
}

#[test]
fn a_full_disk_is_named() -> Result<()> {
    let disk = SmallDisk(TempDir::new()?);
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(disk.0.path()).output()?;
    if !mount.status.success() {
        ensure!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "this must be able to mount a tmpfs");
        println!("skipped: only root may mount a small disk");
        return Ok(());
    }
    std::fs::write(disk.0.path().join("event.toml"), EVENT)?;
    let mut filler = std::fs::File::create(disk.0.path().join("filler"))?;
    while filler.write_all(&[0; 4096]).is_ok() {}
    let config = disk.0.path().join("event.toml");
    let config = config.to_str().context("a path in UTF-8")?;
    let told = doctor(disk.0.path(), &["--config", config, "--listen", "127.0.0.1:0", "--media-port", "0"])?;
    told.fails("disk", "only 0 MB of 1 MB are free on")?;
    told.fails("disk", "the disk is full; delete recordings")
}

#[tokio::test]
async fn a_support_bundle_holds_what_helps_and_no_secret_of_any_kind() -> Result<()> {
    let gateway = Gateway::with_config(EVENT).await?;
    let dir = gateway.state_dir();
    let config = dir.join("asked.toml");
    let wifi = "[wifi]\npassword = \"tuna-salad-9\"\n";
    std::fs::write(&config, format!("{EVENT}# the Wi-Fi password is swordfish-7\n{wifi}"))?;
    let token = gateway.token("dana", "dispatch", "ops")?;
    let head = dir.join("audit.sqlite-head");
    let begun = Instant::now();
    while !head.exists() {
        ensure!(begun.elapsed() < SOON, "the audit has no head");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A secret that is text, as one that was copied from a central server.
    let log = dir.join("gateway.log");
    let key = std::fs::read_to_string(dir.join("tls/ca-key.pem"))
        .unwrap_or_else(|_| "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ\n-----END PRIVATE KEY-----\n".into());
    std::fs::create_dir_all(dir.join("tls"))?;
    std::fs::write(dir.join("tls/ca-key.pem"), &key)?;
    let key_line = key.lines().nth(1).context("no key")?.to_owned();
    // Each with what gives it away, then alone.
    let told = format!("joined /talk#token={token}\nAuthorization: Bearer {token}\npsk = hunter2hunter2\n{key}");
    std::fs::write(&log, format!("{told}saw {token}\nsaw {key_line}\nsaw tuna-salad-9\nthe end\n"))?;
    let output = dir.join("bundle.tar.gz");
    let mut command = Command::new(binary());
    command.args(["support-bundle", "--state-dir"]).arg(dir).arg("--output").arg(&output).arg("--log").arg(&log);
    let done = command.arg("--config").arg(&config).output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));

    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(&output)?));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.iter().skip(1).collect::<std::path::PathBuf>().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text)?;
        files.insert(path, text);
    }
    for (name, part) in [
        ("doctor.txt", "pass  audit"),
        ("doctor.json", "\"by_gateway\": true"),
        ("versions.txt", env!("CARGO_PKG_VERSION")),
        ("audit-head.json", "\"hash\""),
        ("crosspatch.toml", "id = \"ops\""),
        ("ready.json", "\"http\""),
        ("kernel/proc-version.txt", "Linux"),
        ("logs/file.txt", "the end"),
    ] {
        let text = files.get(name).with_context(|| format!("{name} is not in {:?}", files.keys()))?;
        ensure!(text.contains(part), "{name}: {text}");
    }
    let secret = std::fs::read(dir.join("token.secret"))?;
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let signature = token.rsplit('.').next().context("no token")?.to_owned();
    let known = ["swordfish-7", "hunter2hunter2", "tuna-salad-9", "PRIVATE KEY"];
    for (name, text) in &files {
        for gone in known.into_iter().chain([token.as_str(), &signature, &hex, &key_line]) {
            ensure!(!text.contains(gone), "{name} holds the secret {gone}");
        }
        ensure!(!text.as_bytes().windows(secret.len()).any(|part| part == secret), "{name} holds the secret of tokens");
    }
    Ok(())
}

#[test]
fn every_key_of_the_configuration_is_explained_by_the_command() -> Result<()> {
    let done = Command::new(binary()).args(["config", "reference"]).output()?;
    let text = String::from_utf8(done.stdout)?;
    ensure!(text.contains("| `lead_in_ms` | 0 to 2000 | `200` |"), "{text}");
    let lines = BufReader::new(text.as_bytes()).lines().count();
    ensure!(lines > 80, "{lines}");
    Ok(())
}
