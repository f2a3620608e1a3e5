//! The chips that the kernel has now, and where a profile's lines are on them.
//!
//! **Invariant:** a chip is known by its label and a line by its name, or by its label and offset; numbers of chips
//! change from boot to boot and mean nothing.

use crate::hardware::board::Line;
use std::path::PathBuf;

/// What one chip says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chip {
    pub(super) path: PathBuf,
    pub(super) label: String,
    pub(super) lines: Vec<ChipLine>,
}

/// One line of a chip, in the order of offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ChipLine {
    pub(super) name: String,
    /// Who holds it, if somebody does.
    pub(super) holder: Option<String>,
}

/// Where a line is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) chip: PathBuf,
    pub(super) offset: u32,
}

/// Why a line cannot be had, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// It comes back with a change under `/dev`: its chip is not there, or has no such line.
    Absent(String),
    /// It may be had any time: somebody holds it, or the kernel refuses.
    Refused(String),
}

impl Missing {
    pub(super) fn why(&self) -> &str {
        match self {
            Missing::Absent(why) | Missing::Refused(why) => why,
        }
    }
}

/// The chips that are there, and those that may not be opened, each with the reason.
#[derive(Debug, Default)]
pub(super) struct Chips {
    chips: Vec<Chip>,
    closed: Vec<String>,
}

/// How names under `/dev` begin.
pub(super) const PREFIX: &str = "gpiochip";

impl Chips {
    /// Looks at everything under `/dev`.
    pub(super) fn scan() -> Self {
        let mut chips = Chips::default();
        let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries
            .filter(|e| e.file_name().to_string_lossy().starts_with(PREFIX))
            .filter_map(|e| e.path().canonicalize().ok())
            .collect();
        paths.sort();
        paths.dedup(); // links for old programs lead to the same chips
        for path in paths {
            match read(&path) {
                Ok(chip) => chips.chips.push(chip),
                Err(e) => chips.closed.push(format!("{} cannot be opened: {e}", path.display())),
            }
        }
        chips
    }

    /// The labels of those that are there.
    pub(super) fn labels(&self) -> Vec<String> {
        self.chips.iter().map(|chip| chip.label.clone()).collect()
    }

    /// Finds a line that is there and free.
    pub(super) fn find(&self, line: &Line) -> Result<Place, Missing> {
        let fits = |chip: &&Chip| line.chip.is_empty() || line.chip.contains(&chip.label);
        let candidates: Vec<&Chip> = self.chips.iter().filter(fits).collect();
        if candidates.is_empty() {
            return Err(Missing::Absent(self.no_chip(line)));
        }
        let on = |chip: &Chip| match (&line.kernel_line, line.offset) {
            (Some(name), _) => chip.lines.iter().position(|l| l.name == *name),
            (None, Some(offset)) => usize::try_from(offset).ok().filter(|o| *o < chip.lines.len()),
            (None, None) => None,
        };
        let found: Vec<_> = candidates.iter().filter_map(|chip| Some((*chip, on(chip)?))).collect();
        let name = &line.name;
        match (found.as_slice(), &line.kernel_line) {
            ([], Some(kernel)) => Err(Missing::Absent(format!(
                "gpio line '{name}': no chip has a line '{kernel}'; correct kernel_line, `gpioinfo` lists the names"
            ))),
            ([], None) => Err(Missing::Absent(format!(
                "gpio line '{name}': the chip '{}' has no such offset; correct it, `gpioinfo` lists the offsets",
                candidates[0].label
            ))),
            ([(chip, index)], _) => match &chip.lines[*index].holder {
                Some(holder) => Err(Missing::Refused(held(line, holder))),
                None => Ok(Place {
                    chip: chip.path.clone(),
                    offset: u32::try_from(*index).expect("offsets of a chip are u32"),
                }),
            },
            (_, _) => Err(Missing::Absent(format!(
                "gpio line '{name}' is on more than one chip; give the label of its chip, or its kernel_line"
            ))),
        }
    }

    fn no_chip(&self, line: &Line) -> String {
        let mut why = if line.chip.is_empty() {
            "there is no gpio chip".to_owned()
        } else {
            format!("there is no gpio chip '{}'", line.chip.join("' or '"))
        };
        why += match self.closed.as_slice() {
            [] => "; connect it, or give the chip's label that `gpiodetect` shows; it is taken by itself when it comes",
            [..] => "; these may not be opened, let the service's user do so (group gpio): ",
        };
        why + &self.closed.join(", ")
    }
}

/// What a consumer of ours is called, before the name of the line.
pub(super) const CONSUMER: &str = "crosspatch ";

fn held(line: &Line, holder: &str) -> String {
    let name = &line.name;
    if holder.starts_with(CONSUMER) {
        return format!(
            "gpio line '{name}' is held by crosspatch already, as '{holder}'; use the front panel of the running gateway, \
             or stop it first: systemctl stop crosspatch"
        );
    }
    format!("gpio line '{name}' is held by '{holder}'; stop that program, and the line is taken by itself")
}

fn read(path: &PathBuf) -> gpiocdev::Result<Chip> {
    let chip = gpiocdev::Chip::from_path(path)?;
    let label = chip.info()?.label;
    let lines = chip.line_info_iter()?.map(|info| {
        let info = info?;
        Ok(ChipLine { name: info.name, holder: info.used.then_some(info.consumer) })
    });
    Ok(Chip { path: path.clone(), label, lines: lines.collect::<gpiocdev::Result<_>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::board::Board;

    fn line(place: &str) -> Line {
        let text = format!(
            "name = \"x\"\nbackend = \"cdev\"\nchip = [\"soc\", \"soc-old\"]\n[[line]]\nname = \"ptt\"\ndirection = \"input\"\n{place}\n"
        );
        Board::parse(&text, "x.toml").unwrap().lines.remove(0)
    }

    fn chip(number: u32, label: &str, names: &[&str]) -> Chip {
        let lines = names.iter().map(|n| ChipLine { name: (*n).into(), holder: None }).collect();
        Chip { path: format!("/dev/gpiochip{number}").into(), label: label.into(), lines }
    }

    fn chips(chips: Vec<Chip>) -> Chips {
        Chips { chips, closed: Vec::new() }
    }

    fn place(number: u32, offset: u32) -> Place {
        Place { chip: format!("/dev/gpiochip{number}").into(), offset }
    }

    #[test]
    fn a_line_is_found_by_its_chips_label_whatever_the_number() {
        let offset = line("offset = 1");
        let expander = || chip(0, "expander", &["", "", "BTN"]);
        assert_eq!(chips(vec![expander(), chip(4, "soc", &["", ""])]).find(&offset), Ok(place(4, 1)));
        assert_eq!(chips(vec![chip(1, "soc-old", &["", ""]), expander()]).find(&offset), Ok(place(1, 1)));
        let missing = chips(vec![expander()]).find(&offset).unwrap_err();
        assert!(missing.why().starts_with("there is no gpio chip 'soc' or 'soc-old'; connect it"), "{missing:?}");
    }

    #[test]
    fn a_line_is_found_by_its_kernel_name() {
        let mut named = line("kernel_line = \"BTN\"");
        let all = chips(vec![chip(0, "soc", &["X", "BTN"]), chip(1, "expander", &["BTN"])]);
        assert_eq!(all.find(&named), Ok(place(0, 1)));
        named.chip = Vec::new();
        let two = all.find(&named).unwrap_err();
        assert!(two.why().contains("more than one chip"), "{two:?}");
        named.kernel_line = Some("BTM".into());
        let none = all.find(&named).unwrap_err();
        assert_eq!(
            none.why(),
            "gpio line 'ptt': no chip has a line 'BTM'; correct kernel_line, `gpioinfo` lists the names"
        );
    }

    #[test]
    fn two_chips_of_one_label_are_never_guessed_between() {
        let two = chips(vec![chip(0, "soc", &["", ""]), chip(1, "soc", &["", ""])]);
        assert!(matches!(two.find(&line("offset = 0")), Err(Missing::Absent(_))));
        let beyond = chips(vec![chip(0, "soc", &["", ""])]).find(&line("offset = 2")).unwrap_err();
        assert!(beyond.why().contains("has no such offset"), "{beyond:?}");
    }

    #[test]
    fn who_holds_a_line_and_which_chip_is_closed_is_said() {
        let mut held = chip(0, "soc", &[""]);
        held.lines[0].holder = Some("gpiomon".into());
        let refused = chips(vec![held.clone()]).find(&line("offset = 0")).unwrap_err();
        assert_eq!(
            refused,
            Missing::Refused(
                "gpio line 'ptt' is held by 'gpiomon'; stop that program, and the line is taken by itself".into()
            )
        );
        held.lines[0].holder = Some("crosspatch ptt".into());
        let ours = chips(vec![held]).find(&line("offset = 0")).unwrap_err();
        assert!(ours.why().ends_with("stop it first: systemctl stop crosspatch"), "{ours:?}");
        let closed = Chips { chips: Vec::new(), closed: vec!["/dev/gpiochip0 cannot be opened: EACCES".into()] };
        let why = closed.find(&line("offset = 0")).unwrap_err();
        assert!(why.why().ends_with("(group gpio): /dev/gpiochip0 cannot be opened: EACCES"), "{why:?}");
    }
}
