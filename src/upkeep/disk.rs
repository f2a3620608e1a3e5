//! Files that are all there or not at all, and who they belong to.

use super::UpkeepError;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Replaces a file in one step: whenever the power goes, the old one or the new one is there, whole.
pub fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), UpkeepError> {
    let at = || UpkeepError::at(path);
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    match std::fs::remove_file(part) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(at()(e)),
        Ok(()) | Err(_) => {} // of a write that the power ended
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(part).map_err(at())?;
    file.write_all(bytes).map_err(at())?;
    match file.set_permissions(std::fs::Permissions::from_mode(mode)) {
        Err(e) if e.kind() != std::io::ErrorKind::PermissionDenied => return Err(at()(e)),
        Ok(()) | Err(_) => {} // FAT has no modes, and says so
    }
    file.sync_all().map_err(at())?;
    std::fs::rename(part, path).map_err(at())?;
    sync_directory_of(path)
}

/// Removes a file if it is there.
pub fn remove(path: &Path) -> Result<(), UpkeepError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(UpkeepError::at(path)(e)),
        Ok(()) => sync_directory_of(path),
        Err(_) => Ok(()),
    }
}

/// Makes a directory that only its owner enters, if it is not there.
pub fn make_private_directory(path: &Path) -> Result<(), UpkeepError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(UpkeepError::at(path))
}

/// Has the names in a file's directory reach the disk.
pub fn sync_directory_of(path: &Path) -> Result<(), UpkeepError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(UpkeepError::at(dir))
}

/// Puts a directory in the place of another in one step. What was there before has the other's name afterwards.
pub fn swap_in(new: &Path, place: &Path) -> Result<(), UpkeepError> {
    if place.exists() {
        let swap = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(rustix::fs::CWD, new, rustix::fs::CWD, place, swap)
            .map_err(|e| UpkeepError::at(place)(e.into()))?;
    } else {
        std::fs::rename(new, place).map_err(UpkeepError::at(place))?;
    }
    sync_directory_of(place)
}

/// Writes on a card. One that is mounted read-only, so that a power cut does it no harm, is made writable for that moment.
pub fn on_card(
    card: &Path,
    is_this_system: bool,
    write: impl Fn() -> Result<(), UpkeepError>,
) -> Result<(), UpkeepError> {
    let remount = |how: &str| {
        let done = std::process::Command::new("mount").args(["-o", how]).arg(card).status();
        done.is_ok_and(|status| status.success())
    };
    match write() {
        Err(UpkeepError::Disk { source, .. })
            if is_this_system && source.kind() == std::io::ErrorKind::ReadOnlyFilesystem =>
        {
            let done = if remount("remount,rw") { write() } else { Err(UpkeepError::at(card)(source)) };
            remount("remount,ro");
            done
        }
        done => done,
    }
}

/// Gives a file to the owner of `dir`, if root has made it.
pub fn give_to_owner_of(dir: &Path, path: &Path) -> Result<(), UpkeepError> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let owner = std::fs::metadata(dir).map_err(UpkeepError::at(dir))?;
    std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid())).map_err(UpkeepError::at(path))
}

/// Does something as the owner of `dir`, if root is who does it: the gateway's user must be able to use what is made
/// there, and root must follow no link that this user has laid.
pub fn as_owner_of<T>(dir: &Path, act: impl FnOnce() -> Result<T, UpkeepError>) -> Result<T, UpkeepError> {
    let at = || UpkeepError::at(dir);
    let owner = std::fs::metadata(dir).map_err(at())?;
    if !nix::unistd::geteuid().is_root() || owner.uid() == 0 {
        return act();
    }
    let become_user = |uid: u32, gid: u32| -> nix::Result<()> {
        nix::unistd::setegid(gid.into())?;
        nix::unistd::seteuid(uid.into())
    };
    let back = || {
        nix::unistd::seteuid(0.into()).expect("the saved user is root");
        nix::unistd::setegid(0.into()).expect("root may");
    };
    if let Err(e) = become_user(owner.uid(), owner.gid()) {
        back();
        return Err(at()(e.into()));
    }
    let done = act();
    back();
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_what_an_interrupted_write_left_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        std::fs::write(dir.path().join("a.toml.part"), "half").unwrap();
        write_whole(&path, b"one", 0o600).unwrap();
        let mut one = File::open(&path).unwrap();
        write_whole(&path, b"two", 0o644).unwrap();
        assert_eq!(std::io::read_to_string(&mut one).unwrap(), "one", "nobody wrote into it");
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o644);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
