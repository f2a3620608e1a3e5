//! The technician's tools as the real program, with the null sinks of a sound server as the radio's card.

#[expect(dead_code, reason = "the benchmarks and other tests use the rest")]
#[path = "native/mod.rs"]
mod native;

use anyhow::{Context, Result, ensure};
use native::fob::PtyFob;
use native::gateway::{Gateway, binary};
use native::sound::SoundServer;
use native::threads;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::f64::consts::TAU;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const EVENT: &str = r#"# The fair.
[event]
id = "fair"

[[channel]]
id = "ops"
name = "Operations"

[[radio]]
id = "vhf"
user = "radio-vhf"
name = "VHF 1"
channel = "ops"
ptt_line = "radio.vhf.ptt"
lead_in_ms = 700     # a slow relay
capture_pcm = "radio_rx"
playback_pcm = "radio_tx"
"#;

fn tone(hz: f64, peak: f64, seconds: u32) -> Vec<i16> {
    let sample = |n: u32| ((f64::from(n) * hz / 48_000.0 * TAU).sin() * peak * 32_767.0) as i16;
    (0..seconds * 48_000).map(sample).collect()
}

fn tool(sound: &SoundServer, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).envs(sound.environment()).env("RUST_LOG", "error").current_dir(sound.dir());
    command
}

fn run(sound: &SoundServer, arguments: &[&str]) -> Result<Output> {
    Ok(tool(sound, arguments).stdin(Stdio::null()).output()?)
}

/// Reads what a program says until these words are in it.
fn until(program: &mut Child, said: &mut String, words: &str) -> Result<()> {
    let out = program.stdout.as_mut().context("no output")?;
    let mut byte = [0];
    while !said.contains(words) {
        ensure!(out.read(&mut byte)? == 1, "it ended before it said '{words}':\n{said}");
        said.push(char::from(byte[0]));
    }
    Ok(())
}

fn contains(text: &str, part: &str) {
    assert!(text.contains(part), "'{part}' is not in\n{text}");
}

fn report(dir: &Path) -> Result<(Value, String)> {
    let files: Vec<_> = std::fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect();
    let of = |end: &str| files.iter().find(|path| path.extension().is_some_and(|e| e == end)).context("no report");
    Ok((serde_json::from_str(&std::fs::read_to_string(of("json")?)?)?, std::fs::read_to_string(of("txt")?)?))
}

#[test]
fn an_alignment_measures_through_real_devices_and_ends_in_a_valid_configuration_and_a_report() -> Result<()> {
    let sound = SoundServer::start(&["radio_rx", "radio_tx"])?;
    let config = sound.dir().join("event.toml");
    std::fs::write(&config, EVENT)?;
    let arguments = "radio align --config event.toml --radio vhf --by Ada --report reports --far radio_tx";
    let arguments: Vec<_> = arguments.split(' ').collect();
    let mut program = tool(&sound, &arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut answers = program.stdin.take().context("no input")?;
    let mut said = String::new();
    until(&mut program, &mut said, "Nobody transmits for the next two seconds. [Enter]")?;
    answers.write_all(b"\n")?;
    until(&mut program, &mut said, "send a tone of 1 kHz. [Enter]")?;
    let speaker = sound.play("radio_rx", &tone(1000.0, 0.05, 60))?;
    answers.write_all(b"\n")?;
    until(&mut program, &mut said, "Set 60 % of full deviation. [Enter]")?;
    drop(speaker);
    answers.write_all(b"\n")?;
    until(&mut program, &mut said, "Is the level right?")?;
    answers.write_all(b"ok\n\n")?;
    until(&mut program, &mut said, "Write this to event.toml?")?;
    answers.write_all(b"y\n")?;
    drop(answers);
    program.stdout.take().context("no output")?.read_to_string(&mut said)?;
    ensure!(program.wait()?.code() == Some(0), "it does not pass:\n{said}");

    let (json, text) = report(&sound.dir().join("reports"))?;
    assert_eq!((&json["pass"], &json["written"], &json["by"]), (&true.into(), &true.into(), &"Ada".into()), "{json:#}");
    contains(&text, "PASS");
    let of = |name: &str| json["steps"].as_array().and_then(|s| s.iter().find(|s| s["name"] == name)).cloned();
    let receive = of("receive").context("no receive step")?;
    let peak = receive["measured"]["peak_dbfs"].as_f64().context("no peak")?;
    assert!((peak - -26.0).abs() < 0.5, "a peak of 0.05 is -26 dBFS: {receive}");
    let far = of("transmit").context("no transmit step")?;
    assert_eq!(far["result"], "pass", "{far}");
    contains(&said, "the far radio hears it with -12.");
    // What was transmitted is heard at once here, and so no lead-in is needed but for the margin.
    let new = std::fs::read_to_string(&config)?;
    let lead_in = new.lines().find_map(|line| line.strip_prefix("lead_in_ms = ")).context("no lead-in")?;
    let (value, comment) = lead_in.split_once(' ').context("its comment is gone")?;
    assert!((50..=150).contains(&value.parse::<u32>()?), "{new}");
    assert_eq!(comment.trim(), "# a slow relay");
    // -26 dBFS at the peak, -29 on average: 14 dB bring the average to -15; the filter takes nothing of 1 kHz.
    contains(&new, "receive_gain_db = 1");
    contains(&new, "vox_threshold_dbfs = -");
    contains(&new, "# The fair.");
    assert_eq!(std::fs::read_to_string(sound.dir().join("event.toml.bak"))?, EVENT);
    let checked = run(&sound, &["check", "--config", "event.toml"])?;
    assert!(checked.status.success(), "{checked:?}");
    Ok(())
}

#[test]
fn a_radio_that_hears_nothing_fails_and_is_left_as_it_was() -> Result<()> {
    let sound = SoundServer::start(&["radio_rx", "radio_tx"])?;
    std::fs::write(sound.dir().join("event.toml"), EVENT)?;
    let arguments = "radio align --config event.toml --radio vhf --yes --report reports --skip transmit,delays";
    let done = run(&sound, &arguments.split(' ').collect::<Vec<_>>())?;
    assert_eq!(done.status.code(), Some(65), "{done:?}");
    let (json, text) = report(&sound.dir().join("reports"))?;
    assert_eq!((&json["pass"], &json["written"]), (&false.into(), &false.into()));
    contains(&text, "nobody was heard");
    assert_eq!(std::fs::read_to_string(sound.dir().join("event.toml"))?, EVENT);
    Ok(())
}

#[test]
fn the_parrot_waits_for_a_voice_keys_and_says_it_back() -> Result<()> {
    let sound = SoundServer::start(&["radio_rx", "radio_tx"])?;
    std::fs::write(sound.dir().join("event.toml"), EVENT)?;
    let on_air = sound.record("radio_tx")?;
    let arguments = "audio parrot --config event.toml --radio vhf --on-carrier --seconds 1";
    let arguments: Vec<_> = arguments.split(' ').collect();
    let mut program = tool(&sound, &arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut said = String::new();
    until(&mut program, &mut said, "waiting for the carrier")?;
    let _voice = sound.play("radio_rx", &tone(1000.0, 0.2, 10))?;
    until(&mut program, &mut said, "unkeyed after")?;
    assert!(program.wait()?.success(), "{said}");
    let loud = on_air.heard()?.iter().filter(|sample| sample.unsigned_abs() > 1000).count();
    // Of a sine of a fifth of full scale, nine of ten samples are louder than that.
    assert!((35_000..=48_000).contains(&loud), "{loud} loud samples of a second");
    Ok(())
}

#[test]
fn ctrl_c_ends_a_tone_on_the_air_at_once() -> Result<()> {
    let sound = SoundServer::start(&["radio_rx", "radio_tx"])?;
    std::fs::write(sound.dir().join("event.toml"), EVENT)?;
    let arguments = "audio tone --config event.toml --radio vhf --key --seconds 60";
    let arguments: Vec<_> = arguments.split(' ').collect();
    let mut command = tool(&sound, &arguments);
    let mut program = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut said = String::new();
    until(&mut program, &mut said, "Ctrl-C unkeys")?;
    let interrupted = Command::new("kill").arg("-INT").arg(program.id().to_string()).status()?;
    ensure!(interrupted.success(), "the signal was not sent");
    let ended = program.wait_with_output()?;
    assert_eq!(ended.status.code(), Some(130));
    contains(&String::from_utf8(ended.stderr)?, "unkeyed; ended before its time");
    Ok(())
}

/// Every tool that keys a radio, with what it is told.
const KEYING: [&str; 3] = [
    "audio tone --key --seconds 60",
    "audio parrot --seconds 2",
    "radio align --yes --by Ada --report reports --skip receive,squelch,delays",
];
/// Signals that ask a program to end.
const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
/// Threads that panic: the first, and the one that listens.
const PANICS: [&str; 2] = ["crosspatch", "ear"];

/// Starts a tool, waits until it keys, ends it, and fails unless it has unkeyed.
fn keyed_and_ended(
    sound: &SoundServer,
    line: &str,
    fob: &mut PtyFob,
    end: impl FnOnce(u32) -> Result<()>,
) -> Result<std::process::ExitStatus> {
    let mut command = tool(sound, &line.split(' ').collect::<Vec<_>>());
    let mut program = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let ended = fob.wait_keyed(true).and_then(|()| end(program.id()));
    if ended.is_err() {
        program.kill()?;
    }
    let status = program.wait()?;
    ended?;
    ensure!(!fob.is_keyed()?, "it is still keyed: {:?}", fob.written()?);
    Ok(status)
}

#[test]
fn whatever_ends_a_tool_its_transmitter_is_unkeyed() -> Result<()> {
    let sound = SoundServer::start(&["radio_rx", "radio_tx"])?;
    let panic = threads::panic_address(&binary())?;
    let every_end = |n: usize, tool: &str| -> Result<()> {
        let mut fob = PtyFob::plug_in()?;
        let on_a_fob = format!("ptt_output = \"cm108\"\nfob = \"{}\"", fob.path()?);
        let config = format!("fob-{n}.toml");
        std::fs::write(sound.dir().join(&config), EVENT.replace("ptt_line = \"radio.vhf.ptt\"", &on_a_fob))?;
        let line = format!("{tool} --config {config} --radio vhf");
        for signal in SIGNALS {
            let end = |pid: u32| Ok(kill(Pid::from_raw(pid.try_into()?), signal)?);
            let status = keyed_and_ended(&sound, &line, &mut fob, end).with_context(|| format!("{tool}, {signal}"))?;
            assert_eq!(status.code(), Some(130), "{tool}, {signal}");
        }
        for thread in PANICS {
            // Not while it sets the pin, when nobody else could.
            let end = |pid| {
                threads::wait_polling(pid, PANICS[0])?;
                threads::panic(pid, thread, panic)
            };
            let status = keyed_and_ended(&sound, &line, &mut fob, end).with_context(|| format!("{tool}, {thread}"))?;
            assert_eq!(status.signal(), Some(Signal::SIGABRT as i32), "{tool}: something else ended it");
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let tools = KEYING.iter().enumerate().map(|(n, tool)| scope.spawn(move || every_end(n, tool)));
        tools.collect::<Vec<_>>().into_iter().try_for_each(|tool| tool.join().expect("it only asserts"))
    })
}

#[tokio::test]
async fn while_a_gateway_runs_it_is_asked_for_its_meters_and_nobody_else_keys_its_radio() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let state = gateway.state_dir().to_str().context("a path")?.to_owned();
    let program = |line: &str| {
        let (line, state) = (line.to_owned(), state.clone());
        tokio::task::spawn_blocking(move || {
            Command::new(binary()).args(line.split(' ')).args(["--state-dir", &state]).stdin(Stdio::null()).output()
        })
    };
    // The simulated receiver hears a tone of -12 dBFS.
    let levels = program("audio levels --radio vhf --seconds 2").await??;
    let shown = String::from_utf8(levels.stdout)?;
    assert!(levels.status.success(), "{shown}");
    contains(&shown, "receiver closed");
    contains(&shown, "transmitter unkeyed");
    contains(&shown, "peak -12.0 dBFS");
    gateway.move_line("radio.vhf.carrier", true).await?;
    gateway.audited("action = 'ptt.start'").await?;
    let shown = String::from_utf8(program("audio levels --radio vhf --seconds 1").await??.stdout)?;
    contains(&shown, "receiver talking");
    let none = String::from_utf8(program("audio levels --radio uhf --seconds 1").await??.stderr)?;
    contains(&none, "it has vhf");

    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/src/gateway/demo.toml");
    for line in ["audio parrot --seconds 1", "audio tone --key --seconds 1", "radio align --yes"] {
        let refused = program(&format!("{line} --config {config} --radio vhf")).await??;
        assert_eq!(refused.status.code(), Some(69), "{line}");
        contains(&String::from_utf8(refused.stderr)?, "systemctl stop crosspatch");
    }
    Ok(())
}
