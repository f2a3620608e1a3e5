//! Changes single keys of a radio in a configuration file: comments and order stay as somebody wrote them.
//!
//! **Invariant:** the file is whole and valid at every moment: the new text is read as the gateway would before it takes the
//! place of the old one, which is kept beside it.

use crate::gateway::config::Config;
use anyhow::Context;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use toml_edit::{DocumentMut, Item, Table, Value};

/// A value for a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Setting {
    /// Milliseconds.
    Ms(u64),
    /// Decibels, dBFS or Hz, to a tenth.
    Tenths(f32),
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Setting::Ms(ms) => write!(f, "{ms}"),
            Setting::Tenths(value) => write!(f, "{value:.1}"),
        }
    }
}

impl serde::Serialize for Setting {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Setting::Ms(ms) => serializer.serialize_u64(*ms),
            Setting::Tenths(value) => serializer.serialize_f64(in_tenths(*value)),
        }
    }
}

fn in_tenths(value: f32) -> f64 {
    (f64::from(value) * 10.0).round() / 10.0
}

/// The text with these keys of a radio set.
///
/// # Errors
/// If the text is no TOML or has no such radio.
pub fn set(text: &str, radio: &str, changes: &[(&str, Setting)]) -> anyhow::Result<String> {
    let mut document: DocumentMut = text.parse().context("the configuration is no TOML")?;
    let radios = document.get_mut("radio").and_then(Item::as_array_of_tables_mut);
    let has_id = |table: &&mut Table| table.get("id").and_then(Item::as_str) == Some(radio);
    let table = radios
        .and_then(|radios| radios.iter_mut().find(has_id))
        .with_context(|| format!("the configuration has no [[radio]] with id = \"{radio}\""))?;
    for (key, setting) in changes {
        let mut value = match setting {
            Setting::Ms(ms) => Value::from(i64::try_from(*ms)?),
            Setting::Tenths(value) => Value::from(in_tenths(*value)),
        };
        // The comment behind a value belongs to it.
        if let Some(old) = table.get(key).and_then(Item::as_value) {
            *value.decor_mut() = old.decor().clone();
        }
        table.insert(key, Item::Value(value));
    }
    Ok(document.to_string())
}

/// Sets keys of a radio in a file, and says where the file as it was is kept.
///
/// # Errors
/// If the file would not be valid any more, or cannot be written; it is as it was then.
pub fn write(path: &Path, radio: &str, changes: &[(&str, Setting)]) -> anyhow::Result<PathBuf> {
    let path = path.canonicalize().with_context(|| format!("{} is gone", path.display()))?;
    let unwritable = || format!("{} cannot be written; nothing was changed", path.display());
    let old = std::fs::read_to_string(&path).with_context(unwritable)?;
    let new = set(&old, radio, changes)?;
    // Beside it, where board profiles and certificates are found by the same names.
    let beside = |end: &str| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(end);
        path.with_file_name(name)
    };
    let (part, kept) = (beside(".part"), beside(".bak"));
    let write_part = |text: &str| -> std::io::Result<()> {
        let mut file = File::create(&part)?;
        file.set_permissions(std::fs::metadata(&path)?.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    let replace = || -> anyhow::Result<()> {
        write_part(&new).with_context(unwritable)?;
        Config::read(&part).context("what was measured makes no valid configuration; nothing was changed")?;
        write_part(&old).and_then(|()| std::fs::rename(&part, &kept)).with_context(unwritable)?;
        write_part(&new).and_then(|()| std::fs::rename(&part, &path)).with_context(unwritable)
    };
    let done = replace();
    if done.is_err() {
        std::fs::remove_file(&part).ok(); // there is none if it could not be made
    }
    done?;
    if let Some(dir) = path.parent() {
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .with_context(|| format!("{} cannot be synced", dir.display()))?;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMO: &str = include_str!("../../gateway/demo.toml");

    #[test]
    fn comments_and_everything_else_stay_as_they_were() {
        let text = DEMO.replace(
            "ptt_line = \"radio.vhf.ptt\"\n",
            "ptt_line = \"radio.vhf.ptt\"\nlead_in_ms = 300   # slow relay\n",
        );
        let changes = [("lead_in_ms", Setting::Ms(450)), ("receive_gain_db", Setting::Tenths(-3.5))];
        let new = set(&text, "vhf", &changes).unwrap();
        let before: Vec<_> = text.lines().collect();
        let changed: Vec<_> = new.lines().filter(|line| !before.contains(line)).collect();
        assert_eq!(changed, ["lead_in_ms = 450   # slow relay", "receive_gain_db = -3.5"]);
        assert_eq!(new.lines().count(), text.lines().count() + 1);
        assert!(set(&text, "uhf", &changes).unwrap_err().to_string().contains("id = \"uhf\""));
    }

    #[test]
    fn a_file_is_replaced_whole_and_kept_as_it_was_and_never_with_something_invalid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("event.toml");
        std::fs::write(&path, DEMO).unwrap();
        let wrong = write(&path, "vhf", &[("lead_in_ms", Setting::Ms(2001))]).unwrap_err();
        assert!(format!("{wrong:#}").contains("lead_in_ms of radio 'vhf' is 2001"), "{wrong:#}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), DEMO);
        let kept = write(&path, "vhf", &[("lead_in_ms", Setting::Ms(250))]).unwrap();
        assert_eq!(kept.file_name().unwrap(), "event.toml.bak");
        assert_eq!(std::fs::read_to_string(kept).unwrap(), DEMO);
        assert_eq!(Config::read(&path).unwrap().radios[0].lead_in_ms, 250);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left lying about");
    }
}
