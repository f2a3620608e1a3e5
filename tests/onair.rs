//! What goes over the air of real sound devices, and what does not: the ends of bursts, squelch tails, and radios that would
//! never stop.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "native/mod.rs"]
mod native;

use anyhow::{Context, Result, ensure};
use crosspatch::audit::Row;
use native::client::{Heard, NativeClient};
use native::gateway::Gateway;
use native::likeness::place;
use native::pulse::{PIECE_MS, RATE};
use native::radios::Radios;
use native::sdp::DtlsRole;
use std::f64::consts::TAU;
use std::ops::Range;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::time::MissedTickBehavior;

/// Tests that listen in real time: one at a time.
static QUIET: Mutex<()> = Mutex::const_new(());

const FRAME: usize = 960;
const MS: usize = RATE as usize / 1_000;
const SOON: Duration = Duration::from_secs(20);
/// So much is enough to find where it was said.
const PIECE: usize = 200 * MS;
/// How much later Opus says what it is told, in samples.
const OPUS_DELAY: usize = 312;

async fn client(gateway: &Gateway, user: &str, channel: &str) -> Result<NativeClient> {
    let token = gateway.token(user, "general", channel)?;
    let mut client = NativeClient::connect(gateway, &token, DtlsRole::Client).await?;
    client.join(channel).await?;
    Ok(client)
}

async fn listener(gateway: &Gateway, user: &str, channel: &str) -> Result<NativeClient> {
    let mut client = client(gateway, user, channel).await?;
    client.consume(channel).await?;
    Ok(client)
}

/// What a listener hears of the packets that came in.
fn decode(heard: &[Heard]) -> Result<Vec<i16>> {
    let mut decoder = opus::Decoder::new(RATE, opus::Channels::Mono)?;
    let mut packets: Vec<_> = heard.iter().collect();
    let first = packets.first().context("nothing was heard")?.sequence;
    packets.sort_by_key(|packet| packet.sequence.wrapping_sub(first) as i16);
    let mut samples = Vec::new();
    for packet in packets {
        let mut frame = [0; FRAME];
        decoder.decode(&packet.payload, &mut frame, false)?;
        samples.extend(frame);
    }
    Ok(samples)
}

fn tone(hz: f64, samples: usize, peak: f64) -> Vec<i16> {
    (0..samples).map(|n| ((n as f64 * TAU * hz / f64::from(RATE)).sin() * peak) as i16).collect()
}

/// How strong a tone is in a stretch of sound: its amplitude.
fn amplitude(samples: &[i16], hz: f64) -> f64 {
    let (mut re, mut im) = (0.0, 0.0);
    for (n, &sample) in samples.iter().enumerate() {
        let angle = n as f64 * TAU * hz / f64::from(RATE);
        re += f64::from(sample) * angle.cos();
        im += f64::from(sample) * angle.sin();
    }
    2.0 * re.hypot(im) / samples.len() as f64
}

/// Where a tone sounds, first to last, to within 5 ms: a window of 20 ms that is half full of it is its edge.
fn span(samples: &[i16], hz: f64) -> Option<Range<usize>> {
    let (window, hop) = (20 * MS, 5 * MS);
    let levels: Vec<_> = samples.windows(window).step_by(hop).map(|window| amplitude(window, hz)).collect();
    let loudest = levels.iter().copied().fold(0.0, f64::max);
    let is_loud = |level: &f64| loudest > 500.0 && *level > loudest / 2.0;
    let middle = |place: usize| place * hop + window / 2;
    Some(middle(levels.iter().position(is_loud)?)..middle(levels.iter().rposition(is_loud)?))
}

/// Something that sounds different at every moment: another tone every 50 ms.
fn ever_different(seconds: usize) -> Vec<i16> {
    let mut seed = 1_u32;
    let mut samples = Vec::new();
    for _ in 0..seconds * 20 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        samples.extend(tone(400.0 + f64::from(seed >> 21), 50 * MS, 9_000.0));
    }
    samples
}

/// How long after one row of the audit another was decided.
fn after(later: &Row, earlier: &Row) -> Duration {
    Duration::from_nanos((later.mono_ns - earlier.mono_ns).unsigned_abs())
}

fn ms(samples: usize) -> f64 {
    samples as f64 / MS as f64
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_and_the_last_50_ms_of_what_a_radio_says_are_heard() -> Result<()> {
    let _quiet = QUIET.lock().await;
    // The filter would turn what is compared.
    let radios = Radios::start(&["high_pass = false"]).await?;
    let listener = listener(&radios.gateway, "lara", "c0").await?;
    let on_air = radios.sounds.record("rx0")?;
    let _playing = radios.sounds.play("rx0", &ever_different(60))?;
    let began = Instant::now();
    while amplitude_of_all(&on_air.samples()) < 1_000.0 {
        ensure!(began.elapsed() < SOON, "nothing is on air");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await; // what came before the carrier
    for round in 0..3 {
        let before = listener.heard().len();
        let opened = Instant::now();
        radios.gateway.move_line("r0.carrier", true).await?;
        tokio::time::sleep(Duration::from_secs(2)).await; // what is said
        let closed = Instant::now();
        radios.gateway.move_line("r0.carrier", false).await?;
        let ends = |row: &&Row| row.action == "ptt.stop";
        let began = Instant::now();
        while radios.gateway.audit()?.iter().filter(ends).count() <= round {
            ensure!(began.elapsed() < SOON, "the burst does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await; // the last packets are on their way
        let heard = decode(&listener.heard()[before..])?;
        let earlier = on_air.sample_at(opened).saturating_sub(RATE as usize);
        let samples = on_air.samples().split_off(earlier);
        // What a decoder says first is faint.
        let (first, last) = (&heard[20 * MS..][..PIECE], &heard[heard.len() - PIECE..]);
        let from = place(first, &samples)?.saturating_sub(20 * MS - OPUS_DELAY);
        let until = place(last, &samples)? + PIECE;
        let (from_ms, until_ms) =
            (ms(earlier + from) - ms(on_air.sample_at(opened)), ms(earlier + until) - ms(on_air.sample_at(closed)));
        println!("heard from {from_ms:.0} ms after the carrier came until {until_ms:.0} ms after it went");
        ensure!(ms(until - from) > 2_000.0 - f64::from(PIECE_MS), "only {:.0} ms were heard", ms(until - from));
        ensure!(from_ms < 0.0, "the first {from_ms:.0} ms are missing");
        ensure!(until_ms > 0.0, "the last {:.0} ms are missing", -until_ms);
        tokio::time::sleep(Duration::from_millis(500)).await; // a pause between two who talk
    }
    Ok(())
}

fn amplitude_of_all(samples: &[i16]) -> f64 {
    samples.iter().map(|sample| f64::from(sample.unsigned_abs())).fold(0.0, f64::max)
}

/// Sends these samples at the pace at which they sound.
async fn say(talker: &mut NativeClient, samples: &[i16]) -> Result<()> {
    let mut encoder = opus::Encoder::new(RATE, opus::Channels::Mono, opus::Application::Voip)?;
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for frame in samples.chunks_exact(FRAME) {
        pace.tick().await;
        talker.send_opus(&encoder.encode_vec(frame, 1_000)?).await?;
    }
    Ok(())
}

/// How many packets of all bursts have come in.
async fn received(gateway: &Gateway) -> Result<u64> {
    let stats = gateway.stats().await?;
    Ok(stats["bursts"].as_array().into_iter().flatten().filter_map(|burst| burst["received"].as_u64()).sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_and_the_last_50_ms_of_what_a_talker_says_go_out_on_the_radio() -> Result<()> {
    let _quiet = QUIET.lock().await;
    // A lead-in longer than what was said before it was over.
    let radios = Radios::start(&["lead_in_ms = 400"]).await?;
    let mut talker = client(&radios.gateway, "gina", "c0").await?;
    talker.produce("c0").await?;
    let recording = radios.sounds.record("tx0")?;
    let ends = 60 * MS;
    let said = [tone(700.0, ends, 9_000.0), tone(1_100.0, 1_880 * MS, 9_000.0), tone(1_700.0, ends, 9_000.0)].concat();
    for round in 1..=2 {
        let from = recording.length();
        talker.press("c0", false).await?;
        say(&mut talker, &said).await?;
        // An app lets go when its last packet is out; here it may wait in a queue of the client's.
        let began = Instant::now();
        while received(&radios.gateway).await? < (round * said.len() / FRAME) as u64 {
            ensure!(began.elapsed() < SOON, "packets are lost");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        talker.release("c0").await?;
        let began = Instant::now();
        while radios.gateway.audit()?.iter().filter(|row| row.action == "radio.unkeyed").count() < round {
            ensure!(began.elapsed() < SOON, "the radio stays keyed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        recording.wait_samples(recording.length() + 200 * MS)?;
        let sound = &recording.samples()[from..];
        for hz in [700.0, 1_700.0] {
            let span = span(sound, hz).with_context(|| format!("{hz} Hz did not go out"))?;
            println!("{hz} Hz of {} ms went out for {:.0} ms", ms(ends), ms(span.len()));
            ensure!(span.len() >= 45 * MS, "{hz} Hz went out for {:.0} ms only", ms(span.len()));
        }
        let middle = span(sound, 1_100.0).context("nothing went out")?;
        ensure!(middle.len() > 1_500 * MS, "{:.0} ms of what was said are left", ms(middle.len()));
    }
    Ok(())
}

/// What stands for the noise: a tone that no voice here has, since a codec makes of noise what it likes.
const NOISE_HZ: f64 = 2_500.0;

/// How many frames have noise in them.
fn noisy_frames(samples: &[i16]) -> usize {
    samples.chunks_exact(FRAME).filter(|frame| amplitude(frame, NOISE_HZ) > 1_000.0).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_noise_at_the_end_of_a_carrier_is_not_heard_where_it_is_eliminated() -> Result<()> {
    let _quiet = QUIET.lock().await;
    let radios = Radios::start(&["tail_elimination_ms = 300", ""]).await?;
    let mut listeners = Vec::new();
    for channel in ["c0", "c1"] {
        listeners.push(listener(&radios.gateway, &format!("lara-{channel}"), channel).await?);
    }
    let sound = [tone(1_000.0, 2_000 * MS, 9_000.0), tone(NOISE_HZ, 3_000 * MS, 9_000.0)].concat();
    let on_air = [radios.sounds.record("rx0")?, radios.sounds.record("rx1")?];
    let _playing = [radios.sounds.play("rx0", &sound)?, radios.sounds.play("rx1", &sound)?];
    for radio in ["r0", "r1"] {
        radios.gateway.move_line(&format!("{radio}.carrier"), true).await?;
    }
    // The squelch shuts when there has been noise for a moment.
    let began = Instant::now();
    let newest = |samples: Vec<i16>| noisy_frames(&samples[samples.len().saturating_sub(10 * FRAME)..]);
    while on_air.iter().any(|on_air| newest(on_air.samples()) < 6) {
        ensure!(began.elapsed() < SOON, "no noise is on air");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for radio in ["r0", "r1"] {
        radios.gateway.move_line(&format!("{radio}.carrier"), false).await?;
    }
    radios.gateway.audited("action = 'ptt.stop' AND channel = 'c0'").await?;
    radios.gateway.audited("action = 'ptt.stop' AND channel = 'c1'").await?;
    tokio::time::sleep(Duration::from_millis(200)).await; // the last packets are on their way
    let heard: Vec<_> = listeners.iter().map(|listener| decode(&listener.heard())).collect::<Result<_>>()?;
    let [with, without] = [0, 1].map(|n| noisy_frames(&heard[n]));
    println!("noise for {} ms with the tail eliminated, {} ms without", 20 * with, 20 * without);
    ensure!(without >= 2, "there was no noise to eliminate");
    ensure!(with == 0, "{} ms of noise are heard", 20 * with);
    let voice = span(&heard[0], 1_000.0).context("no voice was heard")?;
    ensure!(voice.len() > 1_000 * MS, "the voice is cut too: {:.0} ms are left", ms(voice.len()));
    Ok(())
}

fn rows(gateway: &Gateway, action: &str, channel: &str) -> Result<Vec<Row>> {
    let mut rows = gateway.audit()?;
    rows.retain(|row| row.action == action && row.channel.as_deref() == Some(channel));
    Ok(rows)
}

async fn wait_rows(gateway: &Gateway, action: &str, channel: &str, count: usize) -> Result<Vec<Row>> {
    let began = Instant::now();
    loop {
        let rows = rows(gateway, action, channel)?;
        if rows.len() >= count {
            return Ok(rows);
        }
        ensure!(began.elapsed() < SOON, "no {count} × {action}: {:#?}", gateway.audit()?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn is_active(gateway: &Gateway, line: &str) -> Result<bool> {
    let lines = gateway.get("/api/sim/lines").await?;
    let line = lines.as_array().into_iter().flatten().find(|l| l["name"] == line).context("no such line")?;
    Ok(line["active"] == true)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_carrier_is_cut_and_counts_for_nothing_until_it_has_dropped() -> Result<()> {
    let _quiet = QUIET.lock().await;
    let radios = Radios::start(&["carrier_timeout_s = 10"]).await?;
    let gateway = &radios.gateway;
    let listener = listener(gateway, "lara", "c0").await?;
    let _playing = radios.sounds.play("rx0", &tone(1_000.0, 60 * RATE as usize, 9_000.0))?;
    gateway.move_line("r0.carrier", true).await?;
    let revoked = wait_rows(gateway, "ptt.revoked", "c0", 1).await?;
    assert_eq!(revoked[0].cause.as_deref(), Some("carrier-timeout"));
    let held = after(&revoked[0], &rows(gateway, "ptt.start", "c0")?[0]);
    ensure!((9_800..10_200).contains(&held.as_millis()), "cut after {held:?}");
    tokio::time::sleep(Duration::from_millis(200)).await; // the last packets are on their way
    let heard = listener.heard().len();
    ensure!(heard > 400, "only {heard} packets were heard");
    tokio::time::sleep(Duration::from_secs(2)).await; // the carrier is there all the time
    assert_eq!(listener.heard().len(), heard, "it is heard on");
    assert_eq!(rows(gateway, "ptt.start", "c0")?.len(), 1, "it asked again");
    gateway.move_line("r0.carrier", false).await?;
    wait_rows(gateway, "radio.carrier_closed", "c0", 1).await?;
    gateway.move_line("r0.carrier", true).await?;
    wait_rows(gateway, "ptt.start", "c0", 2).await?;
    listener.wait_heard(|now| now.len() > heard + 50, SOON).await;
    ensure!(listener.heard().len() > heard + 50, "it is not heard again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transmitter_that_is_keyed_for_too_long_is_unkeyed_until_the_talker_has_let_go() -> Result<()> {
    let _quiet = QUIET.lock().await;
    let radios = Radios::start(&["transmit_timeout_s = 10"]).await?;
    let gateway = &radios.gateway;
    let mut talker = client(gateway, "gina", "c0").await?;
    talker.produce("c0").await?;
    let recording = radios.sounds.record("tx0")?;
    talker.press("c0", false).await?;
    say(&mut talker, &tone(1_000.0, 13 * RATE as usize, 9_000.0)).await?;
    let unkeyed = wait_rows(gateway, "radio.unkeyed", "c0", 1).await?;
    let keyed = after(&unkeyed[0], &rows(gateway, "radio.keyed", "c0")?[0]);
    ensure!((9_800..10_200).contains(&keyed.as_millis()), "unkeyed after {keyed:?}");
    assert_eq!(unkeyed[0].cause.as_deref(), Some("transmit-timeout"));
    ensure!(!is_active(gateway, "r0.ptt").await?, "keyed again, though the talker has not let go");
    assert_eq!(rows(gateway, "radio.keyed", "c0")?.len(), 1);
    let sounded = span(&recording.samples(), 1_000.0).context("nothing went out")?;
    ensure!(sounded.len() <= 10_100 * MS, "sound went to an unkeyed transmitter: {:.0} ms", ms(sounded.len()));
    talker.release("c0").await?;
    talker.press("c0", false).await?;
    say(&mut talker, &tone(1_000.0, RATE as usize, 9_000.0)).await?;
    wait_rows(gateway, "radio.keyed", "c0", 2).await?;
    talker.release("c0").await?;
    wait_rows(gateway, "radio.unkeyed", "c0", 2).await.map(drop)
}

/// How long each stretch of a tone sounds, in ms, in their order.
fn stretches_ms(samples: &[i16], hz: f64) -> Vec<f64> {
    let (window, hop) = (10 * MS, 5 * MS);
    let loud: Vec<_> = samples.windows(window).step_by(hop).map(|window| amplitude(window, hz) > 2_000.0).collect();
    loud.chunk_by(|a, b| a == b).filter(|run| run[0]).map(|run| ms(run.len() * hop)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_ends_with_a_tone_and_its_name_while_it_is_still_keyed() -> Result<()> {
    let _quiet = QUIET.lock().await;
    let radios = Radios::start(&["courtesy_tone = true\nident = \"ETA\""]).await?;
    let gateway = &radios.gateway;
    let mut talker = client(gateway, "gina", "c0").await?;
    talker.produce("c0").await?;
    let recording = radios.sounds.record("tx0")?;
    talker.press("c0", false).await?;
    say(&mut talker, &tone(1_100.0, RATE as usize, 9_000.0)).await?;
    talker.release("c0").await?;
    let unkeyed = wait_rows(gateway, "radio.unkeyed", "c0", 1).await?;
    recording.wait_samples(recording.length() + 200 * MS)?;
    let sound = recording.samples();
    let said = span(&sound, 1_100.0).context("nothing was said")?;
    let tone = span(&sound, 880.0).context("no courtesy tone sounds")?;
    let name = span(&sound, 700.0).context("no name sounds")?;
    ensure!(said.end <= tone.start && tone.end < name.start, "{said:?}, {tone:?}, {name:?}");
    ensure!((100.0..140.0).contains(&ms(tone.len())), "the tone sounds for {:.0} ms", ms(tone.len()));
    // E, T, A: a dot; a dash; a dot and a dash.
    let signs = stretches_ms(&sound, 700.0);
    println!("the name sounds as {signs:.0?} ms");
    let is = |sign: &f64, dots: f64| (sign - 60.0 * dots).abs() < 25.0;
    ensure!(signs.len() == 4 && signs.iter().zip([1.0, 3.0, 1.0, 3.0]).all(|(sign, dots)| is(sign, dots)), "{signs:?}");
    // It sounds after the lead-in, and the hang follows it.
    let keyed = after(&unkeyed[0], &rows(gateway, "radio.keyed", "c0")?[0]);
    let sounded = ms(name.end - said.start) + 200.0 + 100.0;
    ensure!(keyed.as_secs_f64() * 1_000.0 > sounded - 60.0, "keyed for {keyed:?}, and {sounded:.0} ms are needed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voice_opens_a_radio_by_its_loudness_and_by_its_tone_and_by_no_other_tone() -> Result<()> {
    let _quiet = QUIET.lock().await;
    let by_tone = "carrier_from = \"ctcss\"\nctcss_hz = 88.5";
    let radios = Radios::start(&["carrier_from = \"vox\"", by_tone, by_tone]).await?;
    let gateway = &radios.gateway;
    let voice = |hz: f64| {
        let both = tone(1_000.0, 2_000 * MS, 6_000.0).into_iter().zip(tone(hz, 2_000 * MS, 1_200.0));
        both.map(|(voice, tone)| voice + tone).collect::<Vec<_>>()
    };
    let said = [("rx0", voice(88.5)), ("rx1", voice(88.5)), ("rx2", voice(91.5))];
    let playing = said.iter().map(|(sink, said)| radios.sounds.play(sink, said)).collect::<Result<Vec<_>>>()?;
    // VOX hangs on for 500 ms. A tone is looked for anew where a busy machine tears a hole into it.
    for (channel, held_ms) in [("c0", 2_350..2_650), ("c1", 500..2_100)] {
        let stopped = wait_rows(gateway, "ptt.stop", channel, 1).await?;
        let held = after(&stopped[0], &rows(gateway, "ptt.start", channel)?[0]);
        println!("{channel}: two seconds of voice held the floor for {held:?}");
        ensure!(held_ms.contains(&held.as_millis()), "{channel}: held for {held:?}");
    }
    for playing in playing {
        playing.ended().await?;
    }
    ensure!(rows(gateway, "radio.carrier_open", "c2")?.is_empty(), "another tone opens the radio");
    Ok(())
}
