//! Checkpoints: what the chain was at a moment, signed, so that a chain that is computed anew or cut short is found.
//!
//! A checkpoint is worth what the place is worth where it is kept. Those in the file and the one in `audit.sqlite-head`
//! beside it stop whoever has the file but not the key; an exported one stops everybody. **Invariant:** the head is
//! written after the records it speaks of are on disk, never before.

use super::AuditError;
use super::chain::{Digest, from_hex, to_hex};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The head fills one sector, which the disk writes whole or not at all.
const SECTOR: usize = 512;

/// What the chain was after a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// The record.
    pub seq: i64,
    /// Its hash, in hex.
    pub hash: String,
    /// The record's time.
    pub utc: String,
    /// Why it was made: `periodic`, `migrated`, `pruned`, `stop`, `head`.
    pub cause: String,
    /// The Ed25519 key that has signed it, in hex.
    pub public_key: Option<String>,
    /// The signature, in hex, over [`Checkpoint::statement`].
    pub signature: Option<String>,
}

impl Checkpoint {
    /// What is signed.
    fn statement(&self) -> String {
        let Checkpoint { seq, hash, utc, cause, .. } = self;
        format!("crosspatch audit checkpoint\n{cause}\n{seq}\n{hash}\n{utc}\n")
    }

    /// A checkpoint signed with `key`, if there is one.
    pub(super) fn new(seq: i64, hash: Digest, utc: &str, cause: &str, key: Option<&Key>) -> Self {
        let mut checkpoint = Checkpoint {
            seq,
            hash: hash.to_string(),
            utc: utc.to_owned(),
            cause: cause.to_owned(),
            public_key: key.map(Key::public),
            signature: None,
        };
        checkpoint.signature = key.map(|key| to_hex(key.0.sign(checkpoint.statement().as_bytes()).as_ref()));
        checkpoint
    }

    /// True if its signature is by the key that it names.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        let bytes = |hex: &Option<String>| hex.as_deref().and_then(from_hex);
        let (Some(key), Some(signature)) = (bytes(&self.public_key), bytes(&self.signature)) else { return false };
        UnparsedPublicKey::new(&ED25519, key).verify(self.statement().as_bytes(), &signature).is_ok()
    }
}

/// The box's own key for checkpoints.
pub(super) struct Key(Ed25519KeyPair);

impl Key {
    /// Reads the key beside the audit, or makes one that only its owner can read.
    pub(super) fn beside(audit: &Path) -> std::io::Result<Self> {
        let path = key_path(audit);
        let seed = match std::fs::read(&path) {
            Ok(seed) => seed,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let mut seed = vec![0; 32];
                getrandom::fill(&mut seed).map_err(|e| std::io::Error::other(e.to_string()))?;
                let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
                file.write_all(&seed)?;
                file.sync_all()?;
                seed
            }
            Err(e) => return Err(e),
        };
        Self::of(&seed).ok_or_else(|| std::io::Error::other("it is no key; move it away to have a new one made"))
    }

    fn of(seed: &[u8]) -> Option<Self> {
        Ed25519KeyPair::from_seed_unchecked(seed).ok().map(Key)
    }

    /// The public half, in hex.
    pub(super) fn public(&self) -> String {
        to_hex(self.0.public_key().as_ref())
    }
}

fn key_path(audit: &Path) -> PathBuf {
    audit.with_extension("key")
}

/// The public half of the key beside an audit, in hex; nothing where there is none.
#[must_use]
pub fn public_key_beside(audit: &Path) -> Option<String> {
    Key::of(&std::fs::read(key_path(audit)).ok()?).map(|key| key.public())
}

/// Where the newest checkpoint is kept, beside the audit.
pub(super) fn head_path(audit: &Path) -> PathBuf {
    let mut name = audit.as_os_str().to_owned();
    name.push("-head");
    name.into()
}

/// Writes the newest checkpoint in place. Not synced: it is never ahead of the file, and behind it by what the system
/// has not written yet when the power goes.
pub(super) fn write_head(audit: &Path, head: &Checkpoint) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(head_path(audit))?;
    let text = serde_json::to_string(head).expect("a checkpoint is plain data");
    file.write_all_at(format!("{text:<width$}\n", width = SECTOR - 1).as_bytes(), 0)
}

/// The checkpoint beside the audit.
///
/// # Errors
/// If there is none, or it cannot be read.
pub(super) fn read_head(audit: &Path) -> Result<Checkpoint, String> {
    let mut text = String::new();
    let read = std::fs::File::open(head_path(audit)).and_then(|mut file| file.read_to_string(&mut text));
    read.map_err(|e| e.to_string())?;
    serde_json::from_str(text.trim()).map_err(|e| e.to_string())
}

/// The newest checkpoint of an audit, to be kept elsewhere: the one beside it.
///
/// # Errors
/// If there is none that can be read.
pub fn newest_checkpoint(audit: &Path) -> Result<Checkpoint, AuditError> {
    read_head(audit).map_err(|why| AuditError::NoCheckpoint { path: head_path(audit), why })
}
