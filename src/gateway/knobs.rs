//! The knobs of the configuration as the code declares them: key, kind, range, default and meaning.
//!
//! One declaration serves all: the parser takes keys and defaults from it, [`out_of_range`] judges values by its ranges,
//! and [`reference`] is the operator's page. **Invariant:** no range is written anywhere else.

use super::config::{Button, Channel, Desk, Event, Limits, Media, Tls};
use super::keeping::{Audit, Recorder};
use super::radio_config::Radio;
use super::site::{Network, Person, Site};
use schemars::{JsonSchema, SchemaGenerator};
use serde::de::value::Error;
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Write;

/// The tables in the order of the page: how each begins in the file, and what it is for.
const TABLES: &[(&str, &str, Ask)] = &[
    ("[event]", "The event and its times.", knobs::<Event>),
    (
        "[[channel]]",
        "A talk channel, once for each. `crosspatch channel` adds more while people talk.",
        knobs::<Channel>,
    ),
    ("[limits]", "How many may come.", knobs::<Limits>),
    (
        "[[desk]]",
        "A desk of this box, once for each. Lines are names of the board profile; `docs/desk.md` has examples.",
        knobs::<Desk>,
    ),
    ("[[desk.button]]", "A PTT button or lamp of the desk above it, or a position of its selector.", knobs::<Button>),
    ("[[radio]]", "A radio port of this box, once for each.", knobs::<Radio>),
    (
        "[tls]",
        "How phones and browsers elsewhere get in. Without it the gateway serves this machine only.",
        knobs::<Tls>,
    ),
    ("[media]", "Which addresses clients are told for their audio.", knobs::<Media>),
    ("[box]", "The box besides the gateway; `crosspatch provision` carries it out.", knobs::<Site>),
    ("[[network]]", "How an interface of the box gets its address; likewise.", knobs::<Network>),
    (
        "[[person]]",
        "Somebody who takes part, once for each; likewise. `crosspatch person` changes people while others talk.",
        knobs::<Person>,
    ),
    ("[audit]", "How long records are kept.", knobs::<Audit>),
    ("[recorder]", "What is recorded, and how long that is kept.", knobs::<Recorder>),
];

/// Learns the knobs of a table from its type.
type Ask = fn() -> Vec<Knob>;

/// One key of a table.
struct Knob {
    key: &'static str,
    kind: String,
    default: String,
    meaning: String,
}

/// Learns the keys that a table's parser takes, in their order, by asking it to parse.
struct Keys<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Keys<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("it is asked for its keys only"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The keys that the parser of a table takes.
fn keys<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut keys: &'static [&'static str] = &[];
    let asked = T::deserialize(Keys(&mut keys));
    debug_assert!(asked.is_err(), "nothing was there to parse");
    keys
}

fn schema<T: JsonSchema>() -> Value {
    SchemaGenerator::default().into_root_schema_for::<T>().to_value()
}

/// Tells of every number in a table that is outside of its declared range. `owner` is whose it is, as in `radio 'vhf'`.
pub fn out_of_range<T: Serialize + JsonSchema>(table: &T, owner: &str) -> impl Iterator<Item = String> + use<T> {
    let schema = schema::<T>();
    // As TOML, which has infinities and numbers that are none.
    let values = toml::Table::try_from(table).unwrap_or_default();
    let wrong = values.iter().filter_map(|(key, value)| {
        let number = match value {
            toml::Value::Integer(number) => *number as f64,
            toml::Value::Float(number) => *number,
            toml::Value::String(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_)
            | toml::Value::Table(_) => return None,
        };
        let (low, high) = range(&schema["properties"][key])?;
        let is_in = low <= number && high.is_none_or(|high| number <= high);
        (!is_in).then(|| format!("{key} of {owner} is {number}; use {}", in_words(low, high)))
    });
    wrong.collect::<Vec<_>>().into_iter()
}

/// The declared range of a number; none if every number will do.
fn range(property: &Value) -> Option<(f64, Option<f64>)> {
    let (low, high) = (property["minimum"].as_f64(), property["maximum"].as_f64());
    // Every number without a sign begins at 0, which need not be said.
    low.filter(|low| *low != 0.0 || high.is_some()).map(|low| (low, high))
}

fn in_words(low: f64, high: Option<f64>) -> String {
    match high {
        Some(high) => format!("{low} to {high}"),
        None => format!("{low} or more"),
    }
}

fn knobs<T: for<'de> Deserialize<'de> + JsonSchema>() -> Vec<Knob> {
    let schema = schema::<T>();
    let is_needed = |key: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|k| k == key));
    let knob = |key: &&'static str| {
        let property = &schema["properties"][*key];
        let words = words(property, &schema);
        let meanings = words.iter().filter(|(_, meaning)| !meaning.is_empty());
        let meanings: Vec<_> = meanings.map(|(word, meaning)| format!("`{word}`: {meaning}")).collect();
        let kind = match (range(property), words.as_slice()) {
            (Some((low, high)), _) => in_words(low, high),
            (None, []) => kind(property, &schema).to_owned(),
            (None, words) => words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        };
        let default = match &property["default"] {
            _ if is_needed(key) => "**needed**".into(),
            Value::Null => String::new(),
            Value::Array(none) if none.is_empty() => String::new(),
            Value::String(text) => format!("`{}`", spelt(text)),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                format!("`{}`", property["default"])
            }
        };
        let meaning = property["description"].as_str().unwrap_or_default().replace('\n', " ");
        let meaning = [vec![meaning], meanings].concat().join(" ");
        Knob { key, kind, default, meaning: without_rules(&meaning) }
    };
    // Tables within tables have sections of their own.
    let own = |key: &&&'static str| kind(&schema["properties"][**key], &schema) != "tables";
    keys::<T>().iter().filter(own).map(knob).collect()
}

/// Roles are written in capitals on the wire and in small letters by people; the parser takes both.
fn spelt(word: &str) -> String {
    if word.chars().all(|c| c.is_ascii_uppercase()) { word.to_ascii_lowercase() } else { word.to_owned() }
}

/// Without the numbers of the rules that the code cites, such as (F6).
fn without_rules(text: &str) -> String {
    let mut out = text.to_owned();
    while let Some(at) = out.find(" (E").or_else(|| out.find(" (F"))
        && let Some(end) = out[at..].find(')')
        && out[at + 3..at + end].chars().all(|c| c.is_ascii_digit())
    {
        out.replace_range(at..=at + end, "");
    }
    out
}

/// What a reference leads to.
fn meant<'a>(property: &'a Value, schema: &'a Value) -> &'a Value {
    let one = property["anyOf"].as_array().and_then(|any| any.iter().find(|one| one["type"] != "null"));
    let property = one.unwrap_or(property);
    let name = property["$ref"].as_str().and_then(|path| path.rsplit('/').next());
    name.map_or(property, |name| &schema["$defs"][name])
}

/// The words that may stand there, each with its meaning; none if anything may.
fn words(property: &Value, schema: &Value) -> Vec<(String, String)> {
    let kind = meant(property, schema);
    let one = |value: &Value| {
        let word = spelt(value["const"].as_str()?);
        Some((word, value["description"].as_str().unwrap_or_default().replace('\n', " ")))
    };
    kind["oneOf"].as_array().map(|all| all.iter().filter_map(one).collect()).unwrap_or_default()
}

fn kind(property: &Value, schema: &Value) -> &'static str {
    let found = meant(property, schema);
    let is = |name: &str| {
        found["type"] == name || found["type"].as_array().is_some_and(|types| types.iter().any(|t| t == name))
    };
    if found["anyOf"].is_array() {
        "text, or a list of texts"
    } else if is("array") {
        if meant(&found["items"], schema)["type"] == "object" { "tables" } else { "list of texts" }
    } else if is("boolean") {
        "`true`, `false`"
    } else if is("integer") {
        "whole number"
    } else if is("number") {
        "number"
    } else {
        "text"
    }
}

/// The reference as a page, without its introduction.
#[must_use]
pub fn reference() -> String {
    let mut out = String::new();
    for (table, meaning, knobs) in TABLES {
        let _ = writeln!(out, "## `{table}`\n\n{meaning}\n");
        out += "| key | value | default | what it does |\n| --- | --- | --- | --- |\n";
        for Knob { key, kind, default, meaning } in knobs() {
            let _ = writeln!(out, "| `{key}` | {kind} | {default} | {meaning} |");
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::MIN_HOLD;
    use crate::gateway::config::Config;

    fn knob<'a>(knobs: &'a [Knob], key: &str) -> &'a Knob {
        knobs.iter().find(|knob| knob.key == key).unwrap()
    }

    #[test]
    fn every_table_of_the_configuration_is_in_the_reference() {
        let told: Vec<_> = TABLES.iter().map(|(table, ..)| table.trim_matches(['[', ']'])).collect();
        for key in keys::<Config>() {
            assert!(told.contains(key) || *key == "board", "{key} is in no table of the reference; add it to TABLES");
        }
        assert!(keys::<Desk>().contains(&"button") && told.contains(&"desk.button"));
    }

    #[test]
    fn a_knob_has_its_range_default_and_meaning_from_the_code() {
        let radio = knobs::<Radio>();
        let lead_in = knob(&radio, "lead_in_ms");
        assert_eq!((lead_in.kind.as_str(), lead_in.default.as_str()), ("0 to 2000", "`200`"));
        let threshold = knob(&radio, "vox_threshold_dbfs");
        assert_eq!((threshold.kind.as_str(), threshold.default.as_str()), ("-60 to 0", "`-30.0`"));
        let output = knob(&radio, "ptt_output");
        assert_eq!(output.kind, "`gpio`, `cm108`, `serial-rts`, `serial-dtr`, `none`");
        assert!(output.meaning.contains("`serial-dtr`: A serial port's DTR."), "{}", output.meaning);
        let role = knob(&radio, "role");
        assert_eq!((role.default.as_str(), role.meaning.contains("(F6)")), ("`general`", false));
        assert_eq!(knob(&radio, "id").default, "**needed**");
        assert_eq!(knob(&knobs::<Button>(), "channel").kind, "text, or a list of texts");
        assert!(knobs::<Desk>().iter().all(|knob| knob.key != "button"), "it has a table of its own");
    }

    #[test]
    fn every_knob_says_what_it_does() {
        for (table, _, knobs) in TABLES {
            for knob in knobs() {
                assert!(
                    knob.meaning.ends_with('.') && knob.meaning.len() > 10,
                    "{table} {}: {}",
                    knob.key,
                    knob.meaning
                );
            }
        }
    }

    #[test]
    fn the_emergency_hold_is_never_below_the_two_seconds_of_the_core() {
        let hold = &schema::<Event>()["properties"]["emergency_hold_ms"];
        assert_eq!(hold["minimum"].as_u64().map(u128::from), Some(MIN_HOLD.as_millis()));
    }

    #[test]
    fn numbers_outside_of_their_range_are_told_and_what_is_no_number_too() {
        let radio = |keys: &str| {
            let text = format!("id = \"vhf\"\nuser = \"u\"\nname = \"V\"\nchannel = \"ops\"\n{keys}");
            out_of_range(&toml::from_str::<Radio>(&text).unwrap(), "radio 'vhf'").collect::<Vec<_>>()
        };
        assert_eq!(radio("lead_in_ms = 2001"), ["lead_in_ms of radio 'vhf' is 2001; use 0 to 2000"]);
        assert_eq!(radio("vox_threshold_dbfs = nan").len(), 1);
        assert_eq!(radio("lead_in_ms = 2000"), [""; 0]);
    }
}
