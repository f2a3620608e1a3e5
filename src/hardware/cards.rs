//! Sound cards by names that stay: the USB port that a card is plugged into, or its serial number.
//!
//! Read from sysfs anew each time, so that a card that comes back under another number is found.

use std::fs;
use std::path::{Path, PathBuf};

const SOUND: &str = "/sys/class/sound";
const HIDRAW: &str = "/sys/class/hidraw";

/// A card as the system has it now.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Card {
    /// Its number, which changes.
    pub number: u32,
    /// ALSA's short name for it.
    pub id: String,
    /// What its maker calls it.
    pub product: String,
    /// `usb:1-1.3`: the port that it is plugged into.
    pub usb: Option<String>,
    /// `serial:…`, if it has a serial number.
    pub serial: Option<String>,
    /// True if it hears.
    pub captures: bool,
    /// True if it sounds.
    pub plays: bool,
}

impl Card {
    /// The best name for a configuration.
    #[must_use]
    pub fn name(&self) -> String {
        self.usb.clone().unwrap_or_else(|| format!("card:{}", self.id))
    }

    fn is(&self, name: &str) -> bool {
        self.usb.as_deref() == Some(name)
            || self.serial.as_deref() == Some(name)
            || name.strip_prefix("card:").is_some_and(|id| id == self.id)
    }

    /// The ALSA PCM that converts what the card cannot do.
    #[must_use]
    pub fn pcm(&self) -> String {
        format!("plughw:CARD={},DEV=0", self.id)
    }
}

/// True if it is a name of a card, and not of an ALSA PCM.
#[must_use]
pub fn is_card_name(name: &str) -> bool {
    ["usb:", "serial:", "card:"].iter().any(|prefix| name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()))
}

/// All cards.
#[must_use]
pub fn list() -> Vec<Card> {
    list_in(Path::new(SOUND))
}

/// The card that has this name now.
#[must_use]
pub fn find(name: &str) -> Option<Card> {
    list().into_iter().find(|card| card.is(name))
}

/// The hidraw device that shares a USB device with the card of this name.
pub(super) fn hidraw(name: &str) -> Option<PathBuf> {
    let card = find(name)?;
    let usb = card.usb?;
    let device = hidraw_in(Path::new(HIDRAW), usb.strip_prefix("usb:")?)?;
    Some(Path::new("/dev").join(device))
}

fn hidraw_in(class: &Path, usb: &str) -> Option<String> {
    let entries = fs::read_dir(class).ok()?.flatten();
    let mut found = entries.filter(|entry| {
        fs::canonicalize(entry.path().join("device"))
            .is_ok_and(|device| usb_device(&device).is_some_and(|(_, u)| u == usb))
    });
    found.next().map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// The directory and name of the USB device that a device is part of: `…/1-1.3/1-1.3:1.0/…` is of `1-1.3`.
fn usb_device(device: &Path) -> Option<(PathBuf, String)> {
    let interface =
        device.ancestors().find(|dir| dir.file_name().is_some_and(|n| n.to_string_lossy().contains(":1.")))?;
    let dir = interface.parent()?;
    Some((dir.to_owned(), dir.file_name()?.to_string_lossy().into_owned()))
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn list_in(class: &Path) -> Vec<Card> {
    let Ok(entries) = fs::read_dir(class) else { return Vec::new() };
    let names: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    let card = |name: &String| {
        let number: u32 = name.strip_prefix("card")?.parse().ok()?;
        let dir = class.join(name);
        let id = text(&dir.join("id"))?;
        let usb = fs::canonicalize(dir.join("device")).ok().and_then(|device| usb_device(&device));
        let has = |way: char| names.iter().any(|n| n.starts_with(&format!("pcmC{number}D")) && n.ends_with(way));
        Some(Card {
            number,
            product: usb.as_ref().and_then(|(dir, _)| text(&dir.join("product"))).unwrap_or_else(|| id.clone()),
            serial: usb
                .as_ref()
                .and_then(|(dir, _)| text(&dir.join("serial")))
                .map(|serial| format!("serial:{serial}")),
            usb: usb.map(|(_, name)| format!("usb:{name}")),
            captures: has('c'),
            plays: has('p'),
            id,
        })
    };
    let mut cards: Vec<_> = names.iter().filter_map(card).collect();
    cards.sort_by_key(|card| card.number);
    cards
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A sysfs with a USB fob and a card of the board.
    fn sysfs(dir: &Path) {
        let usb = dir.join("devices/usb1/1-1/1-1.3");
        fs::create_dir_all(usb.join("1-1.3:1.0/sound/card1")).unwrap();
        fs::create_dir_all(usb.join("1-1.3:1.3/0003:0D8C:013C.0001/hidraw/hidraw2")).unwrap();
        fs::write(usb.join("product"), "USB PnP Sound Device\n").unwrap();
        fs::write(usb.join("serial"), "A1B2\n").unwrap();
        fs::create_dir_all(dir.join("devices/soc/card0")).unwrap();
        for class in ["sound", "hidraw"] {
            fs::create_dir_all(dir.join(class)).unwrap();
        }
        for (number, id, device) in [(1, "Device", usb.join("1-1.3:1.0")), (0, "b1", dir.join("devices/soc"))] {
            let card = dir.join(format!("sound/card{number}"));
            fs::create_dir_all(&card).unwrap();
            fs::write(card.join("id"), format!("{id}\n")).unwrap();
            symlink(device, card.join("device")).unwrap();
            fs::create_dir_all(dir.join(format!("sound/pcmC{number}D0p"))).unwrap();
        }
        fs::create_dir_all(dir.join("sound/pcmC1D0c")).unwrap();
        let hidraw = dir.join("hidraw/hidraw2");
        fs::create_dir_all(&hidraw).unwrap();
        symlink(usb.join("1-1.3:1.3/0003:0D8C:013C.0001"), hidraw.join("device")).unwrap();
    }

    #[test]
    fn a_usb_card_is_named_by_its_port_and_serial_number_and_its_fob_is_found_by_the_port() {
        let dir = tempfile::tempdir().unwrap();
        sysfs(dir.path());
        let cards = list_in(&dir.path().join("sound"));
        let names: Vec<_> = cards.iter().map(Card::name).collect();
        assert_eq!(names, ["card:b1", "usb:1-1.3"]);
        let fob = &cards[1];
        assert_eq!((fob.serial.as_deref(), fob.product.as_str()), (Some("serial:A1B2"), "USB PnP Sound Device"));
        assert!(fob.captures && fob.plays && !cards[0].captures);
        assert!(fob.is("usb:1-1.3") && fob.is("serial:A1B2") && fob.is("card:Device") && !fob.is("usb:1-1"));
        assert_eq!(fob.pcm(), "plughw:CARD=Device,DEV=0");
        assert_eq!(hidraw_in(&dir.path().join("hidraw"), "1-1.3"), Some("hidraw2".into()));
        assert_eq!(hidraw_in(&dir.path().join("hidraw"), "1-1.4"), None);
    }

    #[test]
    fn names_of_cards_are_told_from_names_of_pcms() {
        assert!(is_card_name("usb:1-1.3") && is_card_name("card:Loopback"));
        assert!(!is_card_name("plughw:1,0") && !is_card_name("usb:"));
    }
}
