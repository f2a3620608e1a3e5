//! The chain: every record's hash covers what it says and the hash of the record before it.
//!
//! **Invariant:** what is hashed is what the file says, column by column, so that anybody can compute it again with
//! SQLite and SHA-256 alone; `docs/audit.md` says how.

use super::schema::{Cell, Row};
use aws_lc_rs::digest::{SHA256, digest};
use std::fmt;

/// A SHA-256, written in hex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// What stands before the first record.
    pub const ZERO: Digest = Digest([0; 32]);

    /// The hash of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Digest(digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// Reads 64 hex digits.
    #[must_use]
    pub fn parse(hex: &str) -> Option<Self> {
        Some(Digest(from_hex(hex)?.try_into().ok()?))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The hash of a record that follows one with the hash `before`.
///
/// Canonical bytes: the hash before, then each column in the order of the table: 0 for NULL; 1 and eight bytes, the
/// highest first, for a number; 2, its length in bytes as four bytes and the text itself for a text.
pub(super) fn link(before: Digest, row: &Row) -> Digest {
    let mut bytes = before.0.to_vec();
    row.cells(|cell| match cell {
        Cell::Null => bytes.push(0),
        Cell::Number(number) => {
            bytes.push(1);
            bytes.extend(number.to_be_bytes());
        }
        Cell::Text(text) => {
            bytes.push(2);
            bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend(text.as_bytes());
        }
    });
    Digest::of(&bytes)
}

/// Lower-case hex.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]).collect()
}

pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
