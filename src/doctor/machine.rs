//! What the kernel tells of the machine, under `/proc` and `/sys`, and how long a file takes to be safe on disk.
//!
//! Judges nothing. A file that is not there is a fact that is not known.

use super::facts::Disk;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The machine whose files are below a directory: `/`, or a test's.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
}

impl Default for Machine {
    fn default() -> Self {
        Machine { root: "/".into() }
    }
}

fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// The entries of a directory, in order.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    paths
}

fn starts_with(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(name))
}

impl Machine {
    /// The machine whose `/proc` and `/sys` are below `root`.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Machine { root: root.to_owned() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// What the board calls itself, as `Raspberry Pi 4 Model B Rev 1.5`; the product's name on a PC.
    #[must_use]
    pub fn model(&self) -> Option<String> {
        text(&self.at("/proc/device-tree/model")).or_else(|| text(&self.at("/sys/class/dmi/id/product_name")))
    }

    /// Each thermal sensor and its temperature in °C.
    #[must_use]
    pub fn temperatures(&self) -> Vec<(String, f64)> {
        let zones = entries(&self.at("/sys/class/thermal"));
        let zones = zones.iter().filter(|zone| starts_with(zone, "thermal_zone"));
        let read = |zone: &PathBuf| {
            let milli: f64 = text(&zone.join("temp"))?.parse().ok()?;
            Some((text(&zone.join("type")).unwrap_or_else(|| "the sensor".into()), milli / 1000.0))
        };
        zones.filter_map(read).collect()
    }

    /// True while a Raspberry Pi's supply is too low, as its firmware tells the kernel.
    #[must_use]
    pub fn under_voltage(&self) -> Option<bool> {
        let sensors = entries(&self.at("/sys/class/hwmon"));
        let supply = sensors.iter().find(|dir| text(&dir.join("name")).as_deref() == Some("rpi_volt"))?;
        let alarms = entries(supply);
        let alarms = alarms.iter().filter(|path| path.to_string_lossy().ends_with("_lcrit_alarm"));
        alarms.filter_map(|path| text(path)).map(|alarm| alarm != "0").reduce(|a, b| a || b)
    }

    /// The battery clock in seconds since 1970; none if there is none, or one that has lost the time.
    #[must_use]
    pub fn battery_clock_s(&self) -> Option<u64> {
        let clocks = entries(&self.at("/sys/class/rtc"));
        let seconds = clocks.iter().find_map(|clock| text(&clock.join("since_epoch")))?;
        // 2000-01-01 is what a clock without a battery begins with.
        seconds.parse().ok().filter(|s| *s > 978_307_200)
    }

    /// The disk that `dir` is on. Writes nothing.
    #[must_use]
    pub fn disk(&self, dir: &Path) -> Disk {
        let unknown = |why: String| Disk { unknown: Some(why), ..Disk::default() };
        let shown = dir.display();
        let Ok(dir) = dir.canonicalize() else {
            return unknown(format!("{shown} is not there; mount its partition, or name it with --state-dir"));
        };
        let space = match rustix::fs::statvfs(&dir) {
            Ok(space) => space,
            Err(e) => return unknown(format!("the disk of {shown} cannot be looked at ({e}); look as root")),
        };
        let mounts = fs::read_to_string(self.at("/proc/self/mountinfo")).unwrap_or_default();
        let Some(mount) =
            mounts.lines().filter_map(Mount::read).filter(|m| dir.starts_with(&m.at)).max_by(Mount::order)
        else {
            return unknown(format!("the kernel does not tell which disk {shown} is on; look as root"));
        };
        let device = self.device(&mount.device);
        let of_device = |name: &str| device.as_ref().and_then(|device| text(&device.join(name)));
        let hex = |text: &str| u8::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        let life = of_device("life_time").and_then(|life| life.split_whitespace().filter_map(hex).max());
        Disk {
            unknown: None,
            mount: mount.at.display().to_string(),
            file_system: mount.file_system,
            read_only: mount.read_only,
            in_memory: None,
            free_bytes: space.f_bavail * space.f_frsize,
            total_bytes: space.f_blocks * space.f_frsize,
            write: None,
            kind: of_device("type"),
            life_used_tenths: life.filter(|life| *life > 0),
            spare: of_device("pre_eol_info").as_deref().and_then(hex).filter(|spare| *spare > 0),
            made: of_device("date"),
        }
    }

    /// The directory of the device behind a disk, by its numbers: that of a partition's whole disk.
    fn device(&self, numbers: &str) -> Option<PathBuf> {
        let block = self.at("/sys/dev/block").join(numbers).canonicalize().ok()?;
        block.ancestors().take(2).map(|dir| dir.join("device")).find(|device| device.is_dir())
    }

    /// Who listens at a port, as `nginx (process 812)`; only root sees other users' programs.
    #[must_use]
    pub fn holder(&self, udp: bool, port: u16) -> Option<String> {
        let kind = if udp { ["udp", "udp6"] } else { ["tcp", "tcp6"] };
        let wanted = format!(":{port:04X}");
        let inodes: Vec<String> = kind
            .iter()
            .filter_map(|kind| fs::read_to_string(self.at("/proc/net").join(kind)).ok())
            .flat_map(|table| {
                let rows =
                    table.lines().skip(1).map(|row| row.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
                // Listening sockets only: others may share the port's number.
                let listens = |row: &Vec<String>| row.get(3).is_some_and(|state| udp || state == "0A");
                let here = |row: &Vec<String>| row.get(1).is_some_and(|at| at.ends_with(&wanted)) && listens(row);
                rows.filter(here).filter_map(|row| row.get(9).cloned()).collect::<Vec<_>>()
            })
            .map(|inode| format!("socket:[{inode}]"))
            .collect();
        let is_it =
            |fd: &PathBuf| fs::read_link(fd).is_ok_and(|to| inodes.iter().any(|i| to.as_os_str() == i.as_str()));
        let process = entries(&self.at("/proc")).into_iter().find(|dir| entries(&dir.join("fd")).iter().any(is_it))?;
        let id = process.file_name()?.to_string_lossy().into_owned();
        Some(format!("{} (process {id})", text(&process.join("comm"))?))
    }
}

/// A line of `mountinfo`.
struct Mount {
    at: PathBuf,
    device: String,
    read_only: bool,
    file_system: String,
}

impl Mount {
    fn read(line: &str) -> Option<Self> {
        let (own, of_file_system) = line.split_once(" - ")?;
        let own: Vec<_> = own.split(' ').collect();
        let of_file_system: Vec<_> = of_file_system.split(' ').collect();
        let read_only = |options: &&str| options.split(',').any(|option| option == "ro");
        Some(Mount {
            at: PathBuf::from(own.get(4)?.replace("\\040", " ")),
            device: (*own.get(2)?).to_owned(),
            read_only: own.get(5).is_some_and(read_only) || of_file_system.get(2).is_some_and(read_only),
            file_system: (*of_file_system.first()?).to_owned(),
        })
    }

    /// The deepest mount is the one that counts, and of two at one place the later.
    fn order(a: &Self, b: &Self) -> std::cmp::Ordering {
        a.at.components().count().cmp(&b.at.components().count())
    }
}

/// Writes a small file in `dir`, waits until it is safe on disk, and removes it. Gives the milliseconds that it took.
///
/// # Errors
/// If it cannot be written; the sentence says what to do.
pub fn write_test(dir: &Path) -> Result<u64, String> {
    let path = dir.join(format!("doctor-{}.tmp", std::process::id()));
    let begun = Instant::now();
    let written = fs::File::create(&path).and_then(|mut file| {
        file.write_all(&[0x55; 4096])?;
        file.sync_all()
    });
    fs::remove_file(&path).ok();
    let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    written.map(|()| took).map_err(|e| {
        let known = [
            (ErrorKind::StorageFull, "the disk is full; delete recordings, or use a larger disk"),
            (ErrorKind::PermissionDenied, "permission denied; look as root or as the user crosspatch"),
            (ErrorKind::ReadOnlyFilesystem, "it is read-only; repair it with fsck, then restart the box"),
        ];
        let sentence = known.iter().find(|(kind, _)| *kind == e.kind());
        sentence.map_or_else(|| format!("{e}; check the disk"), |(_, sentence)| (*sentence).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn file(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_raspberry_pi_tells_its_model_its_warmth_and_its_supply() {
        let dir = tempfile::tempdir().unwrap();
        let (root, machine) = (dir.path(), Machine::below(dir.path()));
        assert_eq!((machine.model(), machine.under_voltage(), machine.battery_clock_s()), (None, None, None));
        file(root, "proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.5\0");
        file(root, "sys/class/thermal/thermal_zone0/temp", "61342\n");
        file(root, "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n");
        file(root, "sys/class/hwmon/hwmon0/name", "cpu_thermal\n");
        file(root, "sys/class/hwmon/hwmon1/name", "rpi_volt\n");
        file(root, "sys/class/hwmon/hwmon1/in0_lcrit_alarm", "0\n");
        file(root, "sys/class/rtc/rtc0/since_epoch", "946684800\n");
        assert_eq!(machine.model().as_deref(), Some("Raspberry Pi 4 Model B Rev 1.5"));
        assert_eq!(machine.temperatures(), [("cpu-thermal".to_owned(), 61.342)]);
        assert_eq!((machine.under_voltage(), machine.battery_clock_s()), (Some(false), None));
        file(root, "sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n");
        file(root, "sys/class/rtc/rtc0/since_epoch", "1748772000\n");
        assert_eq!((machine.under_voltage(), machine.battery_clock_s()), (Some(true), Some(1_748_772_000)));
    }

    #[test]
    fn the_disk_is_the_deepest_mount_with_what_its_chip_tells_of_its_wear() {
        let dir = tempfile::tempdir().unwrap();
        let (root, machine) = (dir.path(), Machine::below(dir.path()));
        let state = dir.path().join("data/state");
        fs::create_dir_all(&state).unwrap();
        let mounts = format!(
            "21 1 179:2 / / rw,relatime - ext4 /dev/mmcblk0p2 rw\n\
             30 21 179:3 / {} rw,nosuid shared:4 - ext4 /dev/mmcblk0p3 ro,errors=remount-ro\n",
            dir.path().join("data").canonicalize().unwrap().display()
        );
        file(root, "proc/self/mountinfo", &mounts);
        file(root, "sys/devices/mmc/block/mmcblk0/device/type", "MMC\n");
        file(root, "sys/devices/mmc/block/mmcblk0/device/life_time", "0x02 0x0a\n");
        file(root, "sys/devices/mmc/block/mmcblk0/device/pre_eol_info", "0x01\n");
        file(root, "sys/devices/mmc/block/mmcblk0/device/date", "05/2021\n");
        fs::create_dir_all(root.join("sys/devices/mmc/block/mmcblk0/mmcblk0p3")).unwrap();
        fs::create_dir_all(root.join("sys/dev/block")).unwrap();
        symlink(root.join("sys/devices/mmc/block/mmcblk0/mmcblk0p3"), root.join("sys/dev/block/179:3")).unwrap();
        let disk = machine.disk(&state);
        assert_eq!((disk.file_system.as_str(), disk.read_only, disk.kind.as_deref()), ("ext4", true, Some("MMC")));
        assert_eq!((disk.life_used_tenths, disk.spare, disk.made.as_deref()), (Some(10), Some(1), Some("05/2021")));
        assert!(disk.mount.ends_with("/data") && disk.total_bytes > 0, "{disk:?}");
        let gone = machine.disk(&dir.path().join("nowhere"));
        assert!(gone.unknown.unwrap().contains("is not there; mount its partition"));
    }

    #[test]
    fn who_holds_a_port_is_found_by_its_socket() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = Machine::default().holder(false, listener.local_addr().unwrap().port()).unwrap();
        assert!(holder.ends_with(&format!("(process {})", std::process::id())), "{holder}");
    }

    #[test]
    fn a_write_test_leaves_nothing_behind_and_says_why_it_failed() {
        let dir = tempfile::tempdir().unwrap();
        write_test(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(write_test(&dir.path().join("nowhere")).unwrap_err().contains("check the disk"));
    }
}
