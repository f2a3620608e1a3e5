//! Takes secrets out of text that leaves the box.
//!
//! Two nets: values that are known to be secret are found wherever they stand; what looks like a secret (a token, a
//! private key, the value of a key with a telling name) is found without being known. It is better to take too much.

use toml::{Table, Value};

/// What stands in the place of a secret.
pub const HIDDEN: &str = "(hidden)";
/// Parts of names whose values are nobody's business.
const TELLING: &[&str] =
    &["secret", "password", "passwd", "passphrase", "psk", "token", "credential", "private", "wpa"];
/// A shorter word may stand for anything.
const SHORTEST: usize = 6;

fn is_telling(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    TELLING.iter().any(|part| name.contains(part)) || name.ends_with("_key") || name.ends_with("-key")
}

/// Knows some secrets of this box.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    known: Vec<String>,
}

impl Secrets {
    /// Learns a secret, such as the text of a key's file: each of its lines is one.
    pub fn learn(&mut self, text: &str) {
        let lines = text.lines().map(str::trim).filter(|line| line.len() >= SHORTEST && !line.starts_with("-----"));
        self.known.extend(lines.map(str::to_owned));
        // A longer secret may hold a shorter one.
        self.known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// Learns the secrets in a configuration.
    pub fn learn_configuration(&mut self, text: &str) {
        let mut found = Vec::new();
        if let Ok(table) = text.parse::<Table>() {
            hide(&mut Value::Table(table), &mut |secret| found.push(secret));
        }
        found.iter().for_each(|secret| self.learn(secret));
    }

    /// A configuration without comments, which may hold anything, and without its secrets.
    ///
    /// # Errors
    /// If it is not TOML: then nobody can tell what is in it.
    pub fn configuration(&self, text: &str) -> Result<String, String> {
        let unreadable = "it cannot be read, so it was left out; see the check of the configuration";
        let table: Table = text.parse().map_err(|_| unreadable.to_owned())?;
        let mut value = Value::Table(table);
        hide(&mut value, &mut drop);
        toml::to_string_pretty(&value).map(|text| self.scrub(&text)).map_err(|_| unreadable.to_owned())
    }

    /// Text without secrets.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.known {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), HIDDEN);
            }
        }
        let mut out = String::with_capacity(text.len());
        let mut in_key = false;
        for line in text.split_inclusive('\n') {
            if line.contains("-----BEGIN") && line.contains("PRIVATE KEY") {
                in_key = true;
                out.push_str(HIDDEN);
                out.push('\n');
            }
            if !in_key {
                out.push_str(&scrub_line(line));
            }
            if in_key && line.contains("-----END") {
                in_key = false;
            }
        }
        out
    }
}

/// Puts [`HIDDEN`] in the place of every value with a telling name, and tells what stood there.
fn hide(value: &mut Value, tell: &mut dyn FnMut(String)) {
    match value {
        Value::Table(table) => {
            for (name, value) in table.iter_mut() {
                if is_telling(name) {
                    match value {
                        Value::String(secret) => tell(std::mem::replace(secret, HIDDEN.into())),
                        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {
                            tell(value.to_string());
                            *value = Value::String(HIDDEN.into());
                        }
                        Value::Array(_) | Value::Table(_) => {
                            texts(value, tell);
                            *value = Value::String(HIDDEN.into());
                        }
                    }
                } else {
                    hide(value, tell);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| hide(value, tell)),
        Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
}

/// Every text in a value.
fn texts(value: &Value, tell: &mut dyn FnMut(String)) {
    match value {
        Value::String(text) => tell(text.clone()),
        Value::Table(table) => table.values().for_each(|value| texts(value, tell)),
        Value::Array(values) => values.iter().for_each(|value| texts(value, tell)),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
}

fn is_of_a_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | '/' | '~')
}

/// A line without tokens, and without what follows a telling name and `=` or `:`.
fn scrub_line(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    let mut name = "";
    // What was between the last word and here; a value follows its name closely.
    let mut between = String::new();
    while let Some(c) = rest.chars().next() {
        let leads = "=:\"' [\r\n".contains(c);
        let assigned = between.contains(['=', ':']) && between.chars().all(|c| "=:\"' [".contains(c));
        if assigned && is_telling(name) && !leads {
            out.push_str(HIDDEN);
            (name, rest) = ("", &rest[value_length(&between, rest)..]);
        } else if is_of_a_word(c) {
            let end = rest.find(|c| !is_of_a_word(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let bearer = name.eq_ignore_ascii_case("bearer");
            out.push_str(if is_token(word) || bearer { HIDDEN } else { word });
            (name, rest) = (word, after);
        } else {
            between.push(c);
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        between.clear();
    }
    out
}

/// How much of a line is the value that begins it, by what stands before: up to the bracket or quotation mark that closes
/// it, after a colon whatever is not quoted, else a word with whatever letters.
fn value_length(before: &str, line: &str) -> usize {
    let is_end: fn(char) -> bool = match before.chars().rev().find(|c| *c != ' ') {
        _ if before.contains('[') => |c| c == ']',
        Some('\'') => |c| c == '\'',
        Some('"' | ':') => |c| c == '"',
        Some(_) | None => |c: char| c.is_whitespace() || c == '"',
    };
    let mut escaped = false;
    let ends = |c: char| {
        let ends = !escaped && is_end(c) || matches!(c, '\r' | '\n');
        escaped = c == '\\' && !escaped;
        ends
    };
    line.find(ends).unwrap_or(line.len())
}

/// A JSON web token: three parts of base64, the first of which begins with `{"`.
fn is_token(word: &str) -> bool {
    word.find("eyJ").is_some_and(|at| word[at..].matches('.').count() >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_secrets_are_found_wherever_they_stand() {
        let mut secrets = Secrets::default();
        secrets.learn("0123456789abcdef\n");
        secrets.learn("-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG\n-----END PRIVATE KEY-----\n");
        assert_eq!(secrets.scrub("x0123456789abcdefx MIGHAgEAMBMG"), "x(hidden)x (hidden)");
        assert_eq!(secrets.scrub("nothing in here\n"), "nothing in here\n");
    }

    #[test]
    fn what_looks_like_a_secret_is_found_without_being_known() {
        let secrets = Secrets::default();
        for (text, left) in [
            ("GET /ws?token=eyJhbGciOiJIUzI1NiJ9.eyJ1IjoxfQ.c2ln HTTP/1.1", "GET /ws?token=(hidden) HTTP/1.1"),
            ("open /talk#token=eyJhbGciOiJIUzI1NiJ9.e30.c2ln", "open /talk#token=(hidden)"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer (hidden)"),
            ("wifi_password = \"hunter2\"", "wifi_password = \"(hidden)\""),
            ("psk: correct", "psk: (hidden)"),
            ("\"tokenSecret\":\"s3\"", "\"tokenSecret\":\"(hidden)\""),
            ("password = \"correct horse, battery\" # mine", "password = \"(hidden)\" # mine"),
            ("psk: correct horse", "psk: (hidden)"),
            (r#"{"psk":"a\"b","ssid":"event"}"#, r#"{"psk":"(hidden)","ssid":"event"}"#),
            ("psk=!p@ss#w0rd, ssid=event", "psk=(hidden) ssid=event"),
            ("secrets = ['one', 'two'] ssid = 'event'", "secrets = ['(hidden)] ssid = 'event'"),
            ("password='it is \"mine\"'\r\n", "password='(hidden)'\r\n"),
            ("password =\nssid = 3\n", "password =\nssid = 3\n"),
            ("the token is checked", "the token is checked"),
            ("key = \"/etc/own.pem\"", "key = \"/etc/own.pem\""),
        ] {
            assert_eq!(secrets.scrub(text), left);
        }
        let pem = "before\n-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\nafter\n";
        assert_eq!(secrets.scrub(pem), "before\n(hidden)\nafter\n");
    }

    #[test]
    fn a_configuration_loses_its_secrets_and_its_comments() {
        let text = "# the password is swordfish\nboard = \"sim\"\n[wifi]\nssid = \"event\"\npassword = \"letmein99\"\npin_code = 7\n\
                    [[box]]\ntokens = [\"aaaaaaaa\", \"bbbbbbbb\"]\n";
        let mut secrets = Secrets::default();
        let left = secrets.configuration(text).unwrap();
        for gone in ["swordfish", "letmein99", "aaaaaaaa", "bbbbbbbb"] {
            assert!(!left.contains(gone), "{gone}: {left}");
        }
        assert!(left.contains("ssid = \"event\"") && left.contains("password = \"(hidden)\""), "{left}");
        secrets.learn_configuration(text);
        assert_eq!(secrets.scrub("joined with letmein99, then bbbbbbbb"), "joined with (hidden), then (hidden)");
        assert!(secrets.configuration("password = swordfish").is_err());
    }
}
