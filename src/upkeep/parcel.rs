//! One file that holds many, with their checksums, in the clear or sealed with a passphrase. Bytes in, bytes out.
//!
//! Decides whether a file is one of ours, whole and undamaged; never what is done with what is in it.
//!
//! A first line says what it is, a second one (JSON) what follows: a list of the files (JSON, one line), then the files, one
//! after the other. Sealed, the list and the files are one AES-256-GCM message whose key PBKDF2 (HMAC-SHA-256) makes of the
//! passphrase.

use crate::audit::Digest;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::pbkdf2;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

const KIND: &str = "crosspatch backup";
/// The version of the format.
const VERSION: u32 = 1;
/// How often the passphrase is hashed: some tenths of a second on a small board.
const ITERATIONS: u32 = 600_000;
/// What a foreign file may ask for at most.
const MOST_ITERATIONS: u32 = 10_000_000;
/// The shortest passphrase, in letters.
pub const SHORTEST_PASSPHRASE: usize = 8;

/// Files by their names.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What stands in the clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Label {
    /// When it was made, ISO 8601 in UTC.
    pub made: String,
    /// The program that made it.
    pub program: String,
    /// The box's name.
    pub host: String,
    /// The event.
    pub event: String,
    /// True if a file on the card says what the box is.
    pub provisioned: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(flatten)]
    label: Label,
    sealed: Option<Seal>,
    /// Of all that follows, as it is stored.
    bytes: usize,
    sha256: String,
}

#[derive(Serialize, Deserialize)]
struct Seal {
    iterations: u32,
    salt: [u8; 16],
    nonce: [u8; 12],
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    bytes: usize,
    sha256: String,
}

/// Why a file is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParcelError {
    /// It is something else.
    #[error("this is no backup of crosspatch; name a file that `crosspatch backup` has written")]
    Foreign,
    /// A later version wrote it.
    #[error("this backup has format {0}, newer than {VERSION}; restore it with the newer crosspatch")]
    Newer(u32),
    /// Its end is missing.
    #[error("this backup is cut off: {0} of {1} bytes are there; copy it once more")]
    CutOff(usize, usize),
    /// Something in it is not as it was written.
    #[error("this backup is damaged: {0}; copy it once more, or use an older one")]
    Damaged(String),
    /// It is sealed.
    #[error("this backup is sealed; give its passphrase with --passphrase or --passphrase-file")]
    Sealed,
    /// The passphrase does not open it.
    #[error("this is not the passphrase that the backup was sealed with")]
    WrongPassphrase,
    /// A passphrase that anybody guesses.
    #[error("the passphrase is too short; use {SHORTEST_PASSPHRASE} letters or more")]
    Short,
    /// The system gives no random numbers, or the cipher refuses.
    #[error("the backup cannot be sealed: {0}")]
    Cipher(String),
}

/// Packs files into one.
///
/// # Errors
/// If the passphrase is too short or nothing can be sealed.
pub fn pack(label: &Label, files: &Files, passphrase: Option<&str>) -> Result<Vec<u8>, ParcelError> {
    let entry = |(name, bytes): (&String, &Vec<u8>)| Entry {
        name: name.clone(),
        bytes: bytes.len(),
        sha256: Digest::of(bytes).to_string(),
    };
    let mut content = line(&files.iter().map(entry).collect::<Vec<_>>());
    files.values().for_each(|bytes| content.extend(bytes));
    let sealed = match passphrase {
        None => None,
        Some(passphrase) if passphrase.chars().count() < SHORTEST_PASSPHRASE => return Err(ParcelError::Short),
        Some(passphrase) => {
            let mut seal = Seal { iterations: ITERATIONS, salt: [0; 16], nonce: [0; 12] };
            for random in [&mut seal.salt[..], &mut seal.nonce[..]] {
                getrandom::fill(random).map_err(|e| ParcelError::Cipher(e.to_string()))?;
            }
            let nonce = Nonce::assume_unique_for_key(seal.nonce);
            let sealed = key(&seal, passphrase)?.seal_in_place_append_tag(nonce, aad(), &mut content);
            sealed.map_err(|e| ParcelError::Cipher(e.to_string()))?;
            Some(seal)
        }
    };
    let head = Head { label: label.clone(), sealed, bytes: content.len(), sha256: Digest::of(&content).to_string() };
    Ok([format!("{KIND} {VERSION}\n").into_bytes(), line(&head), content].concat())
}

/// Takes files out again, after everything was compared with its checksum.
///
/// # Errors
/// If it is anything but a whole backup, or the passphrase does not open it.
pub fn unpack(bytes: &[u8], passphrase: Option<&str>) -> Result<(Label, Files), ParcelError> {
    let damaged = |what: &str| ParcelError::Damaged(what.to_owned());
    let (first, rest) = split_line(bytes).ok_or(ParcelError::Foreign)?;
    let version = std::str::from_utf8(first).ok().and_then(|l| l.strip_prefix(KIND)?.trim().parse::<u32>().ok());
    match version {
        None => return Err(ParcelError::Foreign),
        Some(VERSION) => {}
        Some(other) => return Err(ParcelError::Newer(other)),
    }
    let (head, content) = split_line(rest).ok_or_else(|| damaged("its head is not whole"))?;
    let head: Head = serde_json::from_slice(head).map_err(|_| damaged("its head cannot be read"))?;
    if content.len() < head.bytes {
        return Err(ParcelError::CutOff(content.len(), head.bytes));
    }
    if content.len() > head.bytes || Digest::of(content).to_string() != head.sha256 {
        return Err(damaged("its checksum is another"));
    }
    let mut content = content.to_vec();
    match (&head.sealed, passphrase) {
        (None, _) => {}
        (Some(_), None) => return Err(ParcelError::Sealed),
        (Some(seal), Some(passphrase)) => {
            let nonce = Nonce::assume_unique_for_key(seal.nonce);
            let opened = key(seal, passphrase)?.open_in_place(nonce, aad(), &mut content);
            let length = opened.map_err(|_| ParcelError::WrongPassphrase)?.len();
            content.truncate(length);
        }
    }
    let (list, mut rest) = split_line(&content).ok_or_else(|| damaged("its list is not whole"))?;
    let list: Vec<Entry> = serde_json::from_slice(list).map_err(|_| damaged("its list cannot be read"))?;
    let mut files = Files::new();
    for Entry { name, bytes, sha256 } in list {
        let (file, after) = rest.split_at_checked(bytes).ok_or_else(|| damaged(&format!("{name} is not whole")))?;
        if Digest::of(file).to_string() != sha256 {
            return Err(damaged(&format!("{name} has another checksum")));
        }
        rest = after;
        files.insert(name, file.to_vec());
    }
    if rest.is_empty() { Ok((head.label, files)) } else { Err(damaged("there is more in it than its list says")) }
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(value).expect("it has no keys but words");
    text.push(b'\n');
    text
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|b| *b == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn aad() -> Aad<&'static [u8]> {
    Aad::from(KIND.as_bytes())
}

fn key(seal: &Seal, passphrase: &str) -> Result<LessSafeKey, ParcelError> {
    let iterations = NonZeroU32::new(seal.iterations).filter(|n| n.get() <= MOST_ITERATIONS);
    let iterations = iterations.ok_or_else(|| ParcelError::Damaged("its seal makes no sense".into()))?;
    let mut key = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &seal.salt, passphrase.as_bytes(), &mut key);
    let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|e| ParcelError::Cipher(e.to_string()))?;
    Ok(LessSafeKey::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        let text = |text: &str| text.to_owned();
        Label { made: text("2026"), program: text("p"), host: text("h"), event: text("e"), provisioned: true }
    }

    fn files() -> Files {
        [("a".to_owned(), b"one\n".to_vec()), ("b/c".to_owned(), vec![0, 255, 10]), ("d".to_owned(), vec![])].into()
    }

    #[test]
    fn what_is_packed_comes_out_again_in_the_clear_or_with_its_passphrase() {
        let open = pack(&label(), &files(), None).unwrap();
        assert_eq!(unpack(&open, None).unwrap(), (label(), files()));
        let sealed = pack(&label(), &files(), Some("correct horse")).unwrap();
        assert!(!sealed.windows(4).any(|part| part == b"one\n"), "nothing of it can be read");
        assert_eq!(unpack(&sealed, Some("correct horse")).unwrap(), (label(), files()));
        assert_eq!(unpack(&sealed, Some("correct house")).unwrap_err(), ParcelError::WrongPassphrase);
        assert_eq!(unpack(&sealed, None).unwrap_err(), ParcelError::Sealed);
        assert_eq!(pack(&label(), &files(), Some("short")).unwrap_err(), ParcelError::Short);
    }

    #[test]
    fn a_backup_that_is_cut_off_anywhere_or_has_a_wrong_byte_anywhere_is_refused() {
        let whole = pack(&label(), &files(), None).unwrap();
        for end in 0..whole.len() {
            assert!(unpack(&whole[..end], None).is_err(), "cut off after {end} bytes");
        }
        assert!(matches!(unpack(&whole[..whole.len() - 1], None), Err(ParcelError::CutOff(..))));
        // Not in the head: its label is for people, and nothing is made of it but words.
        let content = whole.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(1).unwrap().0 + 1;
        for at in [0, 10].into_iter().chain(content..whole.len()) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(unpack(&damaged, None).is_err(), "byte {at} is wrong");
        }
        assert!(unpack(&[&whole[..], b"more"].concat(), None).is_err());
    }

    #[test]
    fn foreign_files_and_newer_formats_are_told_apart() {
        for foreign in [&b""[..], b"PK\x03\x04", b"SQLite format 3\0\n", b"\n\n"] {
            assert_eq!(unpack(foreign, None).unwrap_err(), ParcelError::Foreign);
        }
        assert_eq!(unpack(b"crosspatch backup 7\n", None).unwrap_err(), ParcelError::Newer(7));
    }
}
