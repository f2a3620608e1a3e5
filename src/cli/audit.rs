//! `crosspatch audit`: reading, exporting and verifying the audit, on the box or on a copy of its file.

use super::parse_duration;
use super::people::Refused;
use super::state::StateDir;
use crate::audit::{self, Checkpoint, Filter, Row, Trust, Verdict, iso_8601};
use crate::base::clock::unix_ms_now;
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::json;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a followed audit is looked at.
const FOLLOW: Duration = Duration::from_millis(500);

/// See the command's help.
#[derive(Args)]
pub struct AuditArgs {
    #[command(flatten)]
    state_dir: StateDir,
    /// Another audit file, such as a copy or one that was set aside.
    #[arg(long, global = true)]
    file: Option<PathBuf>,
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Prints the newest records as lines of JSON, then follows with --follow.
    Tail {
        /// How many records.
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: usize,
        /// Goes on with new records.
        #[arg(short, long)]
        follow: bool,
    },
    /// Prints the records that are asked for.
    Query {
        #[command(flatten)]
        wanted: Wanted,
        /// How to print them.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Writes all records of a time with the proof that none is missing or changed; `audit verify --export` checks it.
    Export {
        #[command(flatten)]
        time: Time,
        /// Where to; without it to the standard output.
        #[arg(short, long)]
        output: Option<PathBuf>,
    },
    /// Finds the first record that was changed, deleted, inserted or moved, and an end that was cut off.
    Verify {
        /// An export instead of the audit itself.
        #[arg(long)]
        export: Option<PathBuf>,
        /// A file with checkpoints that were kept elsewhere, one a line, as `audit checkpoint` prints them.
        #[arg(long)]
        checkpoints: Option<PathBuf>,
        /// The public key that checkpoints have to be signed with, in hex; may be given more than once.
        #[arg(long)]
        key: Vec<String>,
    },
    /// Prints the newest checkpoint, signed: keep it where nobody of this box can reach it.
    Checkpoint,
}

/// A stretch of time, as options.
#[derive(Args, Serialize)]
pub struct Time {
    /// Not before this time in UTC, such as 2025-06-01T09:30, or so long ago, such as 2h.
    #[arg(long, value_parser = parse_time)]
    pub from: Option<String>,
    /// Before this time, in the same way.
    #[arg(long, value_parser = parse_time)]
    pub until: Option<String>,
}

#[derive(Args, Serialize)]
struct Wanted {
    #[command(flatten)]
    #[serde(flatten)]
    time: Time,
    /// On this channel.
    #[arg(long)]
    channel: Option<String>,
    /// By or to this person, by id or name.
    #[arg(long)]
    person: Option<String>,
    /// Kinds with commas between them: ptt.start, emergency_broadcast, gpio.
    #[arg(long, value_delimiter = ',')]
    kind: Vec<String>,
    /// Of this talk burst, such as b12.
    #[arg(long)]
    burst: Option<String>,
    /// The newest so many.
    #[arg(short = 'n', long)]
    newest: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Jsonl,
    Csv,
}

/// A time in UTC or how long ago, as the audit writes it or its beginning.
pub(super) fn parse_time(text: &str) -> Result<String, String> {
    if let Ok(ago) = parse_duration(text) {
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        return Ok(iso_8601(unix_ms_now().saturating_sub(ago)));
    }
    let time = text.trim_end_matches('Z').replace(' ', "T");
    let pattern = "dddd-dd-ddTdd:dd:dd.ddd";
    let fits = time.len() <= pattern.len()
        && time.chars().zip(pattern.chars()).all(|(c, p)| if p == 'd' { c.is_ascii_digit() } else { c == p });
    if fits && matches!(time.len(), 4 | 7 | 10 | 13 | 16 | 19 | 23) {
        return Ok(time);
    }
    Err(format!("'{text}' is no time; write it in UTC, such as 2025-06-01T09:30, or how long ago, such as 2h"))
}

/// Runs the command.
///
/// # Errors
/// If the audit cannot be read, or is found broken.
pub fn run(args: &AuditArgs) -> anyhow::Result<()> {
    let path = args.file.clone().unwrap_or_else(|| args.state_dir.audit());
    let note = |how, wanted| {
        // A copy is not the box's any more.
        if args.file.is_none() {
            args.state_dir.note_reading(how, wanted);
        }
    };
    match &args.command {
        AuditCommand::Tail { lines, follow } => {
            note("tail", json!({ "newest": lines, "follow": follow }));
            tail(&path, *lines, *follow)
        }
        AuditCommand::Query { wanted, format } => {
            note("query", json!(wanted));
            query(&path, wanted, *format)
        }
        AuditCommand::Export { time, output } => {
            note("export", json!(time));
            export(&path, time, output.as_deref())
        }
        AuditCommand::Verify { export, checkpoints, key } => {
            let kept = checkpoints.as_deref().map(read_checkpoints).transpose()?.unwrap_or_default();
            let trust = Trust { keys: key.clone(), kept };
            let verdict = match export {
                Some(export) => audit::verify_export(&mut BufReader::new(open(export)?), &trust)?,
                None => audit::verify(&path, &trust)?,
            };
            tell(&verdict)
        }
        AuditCommand::Checkpoint => {
            println!("{}", serde_json::to_string(&audit::newest_checkpoint(&path)?)?);
            Ok(())
        }
    }
}

fn open(path: &Path) -> anyhow::Result<std::fs::File> {
    std::fs::File::open(path).with_context(|| format!("{} cannot be read", path.display()))
}

fn read_checkpoints(path: &Path) -> anyhow::Result<Vec<Checkpoint>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is no list of checkpoints", path.display()))
}

/// Prints a verdict; one that finds a fault is an error.
fn tell(verdict: &Verdict) -> anyhow::Result<()> {
    for note in &verdict.notes {
        println!("note: {note}");
    }
    for key in &verdict.keys {
        println!("checkpoints are signed with {key}; compare it with the key that you know of this box");
    }
    if let Some(broken) = &verdict.broken {
        return Err(Refused(format!("the audit is broken at record {}: {}", broken.seq, broken.why)).into());
    }
    let Verdict { first_seq, last_seq, last_hash, checkpoints, .. } = verdict;
    println!("records {first_seq} to {last_seq} are as they were written; {checkpoints} checkpoints agree");
    println!("the chain ends with {last_hash}");
    Ok(())
}

fn tail(path: &Path, lines: usize, follow: bool) -> anyhow::Result<()> {
    let mut filter = Filter { newest: Some(lines), ..Filter::default() };
    loop {
        let (mut last, mut printed) = (filter.after_seq, Ok(()));
        audit::query(path, &filter, |row| {
            last = row.seq;
            printed = writeln!(std::io::stdout(), "{}", json_line(&row));
            printed.is_ok()
        })?;
        printed?;
        if !follow {
            return Ok(());
        }
        filter = Filter { after_seq: last, ..Filter::default() };
        std::thread::park_timeout(FOLLOW);
    }
}

fn query(path: &Path, wanted: &Wanted, format: Format) -> anyhow::Result<()> {
    let Wanted { time: Time { from, until }, channel, person, kind, burst, newest } = wanted;
    let filter = Filter {
        from: from.clone(),
        until: until.clone(),
        channel: channel.clone(),
        person: person.clone(),
        kinds: kind.clone(),
        burst: burst.clone(),
        after_seq: 0,
        newest: *newest,
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut written = match format {
        Format::Table => writeln!(out, "{}", line(WIDTHS.into_iter().zip(TITLES))),
        Format::Csv => writeln!(out, "{CSV_TITLES}"),
        Format::Jsonl => Ok(()),
    };
    audit::query(path, &filter, |row| {
        let text = match format {
            Format::Table => line(WIDTHS.into_iter().zip(columns(&row))),
            Format::Csv => csv(&row),
            Format::Jsonl => json_line(&row),
        };
        written = writeln!(out, "{text}");
        written.is_ok()
    })?;
    written.and_then(|()| out.flush()).map_err(Into::into)
}

fn export(path: &Path, Time { from, until }: &Time, output: Option<&Path>) -> anyhow::Result<()> {
    let records = match output {
        Some(output) => {
            let cannot = || format!("{} cannot be written", output.display());
            let mut file = BufWriter::new(std::fs::File::create(output).with_context(cannot)?);
            let records = audit::export(path, from.as_deref(), until.as_deref(), &mut file)?;
            file.into_inner().map_err(|e| e.into_error()).and_then(|file| file.sync_all()).with_context(cannot)?;
            records
        }
        None => audit::export(path, from.as_deref(), until.as_deref(), &mut std::io::stdout().lock())?,
    };
    eprintln!("{records} records; verify them with: crosspatch audit verify --export FILE --key KEY");
    Ok(())
}

fn json_line(row: &Row) -> String {
    serde_json::to_string(row).expect("a row is plain data")
}

const TITLES: [&str; 8] = ["utc", "action", "actor", "role", "channel", "target", "cause", "detail"];
/// How wide the columns are; the last one is as wide as it is.
const WIDTHS: [usize; 8] = [25, 28, 20, 9, 12, 14, 16, 0];

fn columns(row: &Row) -> [String; 8] {
    let text = |column: &Option<String>| column.clone().unwrap_or_default();
    let clock = if row.clock_ok { "" } else { "?" }; // the clock was not synchronised
    let actor = row.actor_name.clone().or_else(|| row.actor.clone()).unwrap_or_default();
    let burst = row.burst.as_ref().map(|burst| format!("{burst} ")).unwrap_or_default();
    let detail = if row.detail.is_null() { String::new() } else { row.detail.to_string() };
    [
        format!("{}{clock}", row.utc),
        row.action.clone(),
        actor,
        text(&row.role),
        text(&row.channel),
        text(&row.target),
        text(&row.cause),
        format!("{burst}{detail}"),
    ]
}

/// Columns side by side, each at least so wide.
pub(super) fn line(columns: impl IntoIterator<Item = (usize, impl AsRef<str>)>) -> String {
    let padded = columns.into_iter().map(|(width, text)| format!("{:<width$} ", text.as_ref()));
    let line: String = padded.collect();
    line.trim_end().to_owned()
}

const CSV_TITLES: &str =
    "seq,utc,mono_ns,boot_id,clock_ok,action,actor,actor_name,role,channel,target,cause,burst,detail,hash";

/// RFC 4180; what a spreadsheet would take for a formula is kept from it by an apostrophe.
fn csv(row: &Row) -> String {
    let quoted = |text: &str| {
        let apostrophe = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
        format!("\"{apostrophe}{}\"", text.replace('"', "\"\""))
    };
    let detail = (!row.detail.is_null()).then(|| row.detail.to_string());
    let texts = [&row.actor, &row.actor_name, &row.role, &row.channel, &row.target, &row.cause, &row.burst, &detail];
    let texts: Vec<_> = texts.into_iter().map(|text| text.as_deref().map(quoted).unwrap_or_default()).collect();
    let Row { seq, utc, mono_ns, boot_id, clock_ok, action, hash, .. } = row;
    let boot_id = quoted(boot_id);
    format!("{seq},{utc},{mono_ns},{boot_id},{clock_ok},{action},{},{hash}", texts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_iso_8601_or_how_long_ago() {
        for (text, time) in [
            ("2025-06-01", "2025-06-01"),
            ("2025-06-01 09:30", "2025-06-01T09:30"),
            ("2025-06-01T09:30:05.250Z", "2025-06-01T09:30:05.250"),
        ] {
            assert_eq!(parse_time(text).as_deref(), Ok(time));
        }
        assert!(parse_time("2h").unwrap() < parse_time("1h").unwrap());
        for text in ["yesterday", "2025-6-1", "2025-06-01T09:30+02:00", "2025-06-01T0", ""] {
            assert!(parse_time(text).unwrap_err().contains("such as 2h"), "{text}");
        }
    }

    #[test]
    fn a_name_cannot_become_a_formula_or_a_column() {
        let row = Row { actor_name: Some("=1+1,\"x\"".into()), ..Row::default() };
        assert!(csv(&row).contains(",\"'=1+1,\"\"x\"\"\","), "{}", csv(&row));
    }
}
