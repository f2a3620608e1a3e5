//! The real system: dpkg, systemd, sticks. Decides nothing; every refusal of theirs becomes a sentence.

use super::{PACKAGE, Package, ROOT_ON_CARD, System};
use crate::upkeep::UpkeepError;
use std::cmp::Ordering;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a gateway must stay ready.
const STEADY: Duration = Duration::from_secs(10);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// This machine.
pub struct Debian;

/// What a command prints.
fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).env("LC_ALL", "C.UTF-8").output().map_err(|e| format!("{name}: {e}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let told = String::from_utf8_lossy(&done.stderr);
    let told: Vec<_> = told.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Err(format!("{name} says: {}", if told.is_empty() { done.status.to_string() } else { told.join(" / ") }))
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    output(Command::new(program).args(arguments))
}

impl System for Debian {
    fn installed(&self) -> Result<Option<String>, String> {
        version_of(Path::new("/"))
    }

    fn describe(&self, deb: &Path) -> Result<Package, String> {
        let field = |name: &str| {
            let told = output(Command::new("dpkg-deb").arg("--field").arg(deb).arg(name))?;
            let value = told.trim().to_owned();
            if value.is_empty() { Err(format!("the package has no field {name}")) } else { Ok(value) }
        };
        Ok(Package { name: field("Package")?, version: field("Version")?, architecture: field("Architecture")? })
    }

    fn architecture(&self) -> Result<String, String> {
        run("dpkg", &["--print-architecture"]).map(|told| told.trim().to_owned())
    }

    fn compare(&self, one: &str, other: &str) -> Result<Ordering, String> {
        let is = |how: &str| {
            let done = Command::new("dpkg").args(["--compare-versions", one, how, other]).status();
            done.map(|status| status.success()).map_err(|e| format!("dpkg: {e}"))
        };
        Ok(match (is("lt")?, is("eq")?) {
            (true, _) => Ordering::Less,
            (false, true) => Ordering::Equal,
            (false, false) => Ordering::Greater,
        })
    }

    fn pack_installed(&self, to: &Path) -> Result<(), String> {
        pack(Path::new("/"), to)
    }

    fn install(&mut self, deb: &Path) -> Result<(), String> {
        // Its scripts start nothing: at boot they would wait for what waits for us, and later we restart what is there.
        let mut dpkg = Command::new("dpkg");
        dpkg.env("SYSTEMD_OFFLINE", "1").env("DEBIAN_FRONTEND", "noninteractive").arg("--install").arg(deb);
        output(&mut dpkg)?;
        run("systemctl", &["daemon-reload"]).map(drop)
    }

    fn becomes_ready(&mut self) -> Result<(), String> {
        let unit = "crosspatch.service";
        // Returns when the gateway has said that it is ready, or has ended, or has taken too long.
        run("systemctl", &["restart", unit])?;
        let look = || run("systemctl", &["show", "--property=ActiveState,MainPID", unit]);
        let (first, end) = (look()?, Instant::now() + STEADY);
        if !first.contains("ActiveState=active") {
            return Err(format!("{unit} is not active"));
        }
        while Instant::now() < end {
            std::thread::sleep(LOOK);
            if look()? != first {
                return Err(format!("it did not stay ready for {} seconds", STEADY.as_secs()));
            }
        }
        Ok(())
    }

    fn forgets(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        mounts.lines().any(|line| line.split(' ').nth(1) == Some("/") && line.split(' ').nth(2) == Some("overlay"))
    }

    fn own(&self) -> Result<Option<String>, String> {
        version_of(Path::new(ROOT_ON_CARD))
    }

    fn pack_own(&self, to: &Path) -> Result<(), String> {
        pack(Path::new(ROOT_ON_CARD), to)
    }
}

/// Asks the package database of a root.
fn query(root: &Path, arguments: &[&str]) -> Result<String, String> {
    output(Command::new("dpkg-query").arg("--admindir").arg(root.join("var/lib/dpkg")).args(arguments))
}

/// The version that a root has, whole.
fn version_of(root: &Path) -> Result<Option<String>, String> {
    // It fails for a package that it does not know.
    let told = query(root, &["-W", "-f=${db:Status-Status} ${Version}", PACKAGE]).unwrap_or_default();
    Ok(told.strip_prefix("installed ").map(|version| version.trim().to_owned()))
}

/// Packs what a root has. Not small: it is for one box, and soon replaced.
fn pack(root: &Path, to: &Path) -> Result<(), String> {
    let tree = to.with_extension("tree");
    std::fs::remove_dir_all(&tree).ok(); // of an earlier try
    let packed = lay_out(root, &tree).and_then(|()| {
        let build = ["-Zgzip", "-z1", "--root-owner-group", "--build"];
        output(Command::new("dpkg-deb").args(build).arg(&tree).arg(to)).map(drop)
    });
    std::fs::remove_dir_all(&tree).ok();
    packed
}

/// Lays out what a root has as it was in its package.
fn lay_out(root: &Path, tree: &Path) -> Result<(), String> {
    let at = |path: &Path| {
        let path = path.display().to_string();
        move |e: std::io::Error| format!("{path}: {e}")
    };
    let files = query(root, &["--listfiles", PACKAGE])?;
    for path in files.lines().filter_map(|line| line.strip_prefix('/')).filter(|path| *path != ".") {
        let (path, to) = (&root.join(path), tree.join(path));
        let Ok(facts) = path.symlink_metadata() else { continue }; // a box may leave documents out
        if facts.is_dir() {
            std::fs::create_dir_all(&to).map_err(at(&to))?;
        } else if facts.is_symlink() {
            let target = std::fs::read_link(path).map_err(at(path))?;
            std::os::unix::fs::symlink(target, &to).map_err(at(&to))?;
        } else {
            std::fs::copy(path, &to).map_err(at(path))?;
        }
    }
    let control = tree.join("DEBIAN");
    std::fs::create_dir_all(&control).map_err(at(&control))?;
    for name in query(root, &["--control-list", PACKAGE])?.lines() {
        let text = query(root, &["--control-show", PACKAGE, name])?;
        let path = control.join(name);
        std::fs::write(&path, text).map_err(at(&path))?;
        let mode = if name == "md5sums" || name == "conffiles" { 0o644 } else { 0o755 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).map_err(at(&path))?;
    }
    let status = query(root, &["--status", PACKAGE])?;
    let mut text = String::new();
    let mut wanted = true;
    for line in status.lines() {
        if !line.starts_with(' ') {
            wanted = !["Status:", "Conffiles:", "Config-Version:"].iter().any(|field| line.starts_with(field));
        }
        if wanted {
            text += line;
            text.push('\n');
        }
    }
    let path = control.join("control");
    std::fs::write(&path, text).map_err(at(&path))
}

/// Mounts every partition of a removable disk, read-only and one after the other, until `take` finds what it looks for.
///
/// # Errors
/// The last one's, if none has it.
pub fn from_stick<T>(mut take: impl FnMut(&Path) -> Result<T, UpkeepError>) -> Result<T, UpkeepError> {
    let point = PathBuf::from("/run/crosspatch-stick");
    std::fs::create_dir_all(&point).map_err(UpkeepError::at(&point))?;
    let mut last = UpkeepError::Refused("there is no stick; plug one in, and look with `lsblk`".into());
    for device in sticks() {
        let mut mount = Command::new("mount");
        mount.args(["-o", "ro,nosuid,nodev,noexec"]).arg(&device).arg(&point);
        if let Err(why) = output(&mut mount) {
            last = UpkeepError::Refused(format!("{} cannot be read: {why}", device.display()));
            continue;
        }
        let taken = take(&point);
        if let Err(why) = output(Command::new("umount").arg(&point)) {
            tracing::warn!("{} stays mounted: {why}", device.display());
        }
        match taken {
            Ok(taken) => return Ok(taken),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Partitions of removable disks, and removable disks without any.
fn sticks() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for disk in std::fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let is_usb = disk.path().canonicalize().is_ok_and(|path| path.to_string_lossy().contains("/usb"));
        let removable = std::fs::read_to_string(disk.path().join("removable")).is_ok_and(|text| text.trim() == "1");
        if !is_usb && !removable {
            continue;
        }
        let parts = std::fs::read_dir(disk.path()).into_iter().flatten().flatten();
        let parts: Vec<_> =
            parts.filter(|part| part.path().join("partition").exists()).map(|p| p.file_name()).collect();
        let names = if parts.is_empty() { vec![disk.file_name()] } else { parts };
        found.extend(names.into_iter().map(|name| Path::new("/dev").join(name)));
    }
    found.sort();
    found
}
