//! Whose packages a box takes: those signed with minisign by a key that it has. Decides that, and nothing about packages.

use super::ROOT_ON_CARD;
use minisign_verify::{Error, PublicKey, Signature};
use std::path::{Path, PathBuf};

/// Where public keys are below the root: the package's own, and those that the owner of the box adds.
const DIRECTORIES: [&str; 2] = ["usr/share/crosspatch/update-keys", "etc/crosspatch/update-keys"];
/// Where the owner of a card adds them, with any laptop.
const ON_THE_FIRST_PARTITION: &str = "/boot/firmware/update-keys";

/// The directories of public keys. Of a root that forgets those count that the next boot has, or it would refuse what was
/// taken before.
#[must_use]
pub fn key_directories(forgets: bool) -> Vec<PathBuf> {
    directories(forgets, Path::new(ROOT_ON_CARD))
}

pub(super) fn directories(forgets: bool, root_on_card: &Path) -> Vec<PathBuf> {
    let root = if forgets && root_on_card.is_dir() { root_on_card } else { Path::new("/") };
    DIRECTORIES.iter().map(|dir| root.join(dir)).chain([PathBuf::from(ON_THE_FIRST_PARTITION)]).collect()
}

/// Checks the signature of some bytes by the keys in these directories.
///
/// # Errors
/// With a sentence, if no key of the box has made it.
pub fn verify(bytes: &[u8], signature: &str, directories: &[PathBuf]) -> Result<(), String> {
    let signature =
        Signature::decode(signature).map_err(|_| "its .minisig is no signature of minisign; copy it anew")?;
    let entries = directories.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
    let files = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "pub"));
    let keys: Vec<_> = files.filter_map(|path| PublicKey::from_file(&path).ok()).collect();
    if keys.is_empty() {
        let places = directories.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(" nor ");
        return Err(format!(
            "this box has no key to check it by, neither in {places}; put the *.pub of whoever signs there"
        ));
    }
    let mut why = "it is signed by somebody whose key this box does not have; take a package of yours, or add the key";
    for key in keys {
        match key.verify(bytes, &signature, false) {
            Ok(()) => return Ok(()),
            Err(Error::UnexpectedKeyId) => {}
            Err(Error::UnexpectedAlgorithm | Error::UnsupportedLegacyMode) => {
                why = "its signature is of minisign's old kind; sign it with a newer minisign";
            }
            Err(_) => why = "its signature is not of these bytes: it is damaged or was changed; copy it anew",
        }
    }
    Err(why.into())
}
