//! Many boxes from one file and one list: `{column}` in the file is what the list says there for each box.
//!
//! Decides whether all boxes make sense, each and together; a single error and nothing is made. An error is told where a
//! person must mend it: in the list by line and column, or in the file.

use super::apply;
use super::disk::sync_directory_of;
use super::{UpkeepError, sheet};
use crate::gateway::config::Config;
use crate::gateway::site::Address;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The column that names each box and its directory.
const BOX: &str = "box";

/// One box of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its name in the list.
    pub name: String,
    /// Its file.
    pub text: String,
    /// Files that it names, which go beside it.
    pub beside: Vec<PathBuf>,
}

/// A row of the list.
struct Row {
    line: u64,
    cells: BTreeMap<String, String>,
}

/// Makes the files of all boxes. `list` and `base` are texts, each with the name that stands before its errors; `dir`
/// is where files are that the base names.
///
/// # Errors
/// If anything in either is wrong; all of it is told at once.
pub fn make(list: (&str, &str), base: (&str, &str), dir: &Path) -> Result<Vec<Card>, UpkeepError> {
    let (columns, rows) = read_list(list.0, list.1)?;
    let mut wrong = BTreeSet::new();
    let used = places(base.0);
    for (column, line) in used.iter().filter(|(column, _)| !columns.contains(column)) {
        wrong.insert(format!("{}:{line}: the list has no column '{column}'; add it, or write a value here", base.1));
    }
    for column in columns.iter().filter(|c| *c != BOX && used.iter().all(|(used, _)| used != *c)) {
        wrong.insert(format!("{}:1: column '{column}' is used nowhere; write {{{column}}} in {}", list.1, base.1));
    }
    let mut cards = Vec::new();
    let mut seen = BTreeMap::new();
    for row in &rows {
        let at = |column: &str| format!("{}:{}: column '{column}'", list.1, row.line);
        let name = row.cells.get(BOX).cloned().unwrap_or_default();
        if !is_directory_name(&name) {
            wrong.insert(format!("{}: '{name}' is no name of a directory; use letters, digits, hyphens", at(BOX)));
        }
        let text = row
            .cells
            .iter()
            .fold(base.0.to_owned(), |text, (column, cell)| text.replace(&format!("{{{column}}}"), &escaped(cell)));
        let mut beside = Vec::new();
        match apply::parse(&text, base.1, dir, true) {
            Err(errors) => wrong.extend(errors.iter().map(|error| blame(error, base.1, &used, &at))),
            Ok(config) => {
                beside = apply::beside(&config, dir);
                for (what, value, column) in unique(&name, &config, &used) {
                    if let Some(other) = seen.insert((what, value.to_lowercase()), row.line) {
                        wrong.insert(format!("{}: the {what} '{value}' is that of line {other} too", at(&column)));
                    }
                }
            }
        }
        cards.push(Card { name, text, beside });
    }
    if wrong.is_empty() { Ok(cards) } else { Err(UpkeepError::Written(sorted(wrong))) }
}

/// What no two boxes may have in common, with the column it is from.
fn unique(name: &str, config: &Config, used: &[(String, usize)]) -> Vec<(&'static str, String, String)> {
    let column = |wanted: &str| used.iter().find(|(c, _)| c == wanted).map_or(BOX.into(), |(c, _)| c.clone());
    let mut all = vec![("name", name.to_owned(), BOX.to_owned())];
    all.extend(config.site.hostname.clone().map(|host| ("host name", host, column("hostname"))));
    for network in &config.networks {
        if let Address::Fixed(ip, _) = network.address {
            all.push(("address", ip.to_string(), column("address")));
        }
    }
    all
}

/// By file and line, as numbers.
fn sorted(wrong: BTreeSet<String>) -> Vec<String> {
    let mut all: Vec<_> = wrong.into_iter().collect();
    all.sort_by_key(|error| {
        let mut parts = error.splitn(3, ':');
        let file = parts.next().unwrap_or_default().to_owned();
        (file, parts.next().and_then(|line| line.parse::<u64>().ok()))
    });
    all
}

/// Turns an error of a finished file into one of the list, if the line has something from the list.
fn blame(error: &str, base: &str, used: &[(String, usize)], at: &impl Fn(&str) -> String) -> String {
    let rest = error.strip_prefix(base).and_then(|rest| rest.strip_prefix(':')).unwrap_or_default();
    let Some((line, sentence)) = rest.split_once(": ") else { return error.to_owned() };
    let columns = used.iter().filter(|(_, l)| line.parse() == Ok(*l)).map(|(column, _)| column.as_str());
    match columns.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().as_slice() {
        [] => error.to_owned(),
        columns => format!("{}: {sentence}", at(&columns.join("' or '"))),
    }
}

/// Every `{column}` of a text outside of remarks, with its line.
fn places(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim_start().starts_with('#')) {
        for part in line.split('{').skip(1) {
            let Some((column, _)) = part.split_once('}') else { continue };
            if !column.is_empty() && column.chars().all(|c| c.is_alphanumeric() || "_-".contains(c)) {
                found.push((column.to_owned(), number));
            }
        }
    }
    found
}

/// A cell as it stands between quotation marks.
fn escaped(cell: &str) -> String {
    cell.replace('\\', "\\\\").replace('"', "\\\"")
}

/// A name that every file system takes, and no device of Windows.
fn is_directory_name(name: &str) -> bool {
    let devices = ["con", "prn", "aux", "nul"];
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && !name.starts_with('.')
        && !name.ends_with('.')
        && !devices.contains(&name.to_ascii_lowercase().as_str())
}

/// Reads a list with a heading; a spreadsheet may have written commas, semicolons or tabs between cells.
fn read_list(text: &str, name: &str) -> Result<(Vec<String>, Vec<Row>), UpkeepError> {
    let heading = text.lines().next().unwrap_or_default();
    let count = |mark: &u8| heading.bytes().filter(|b| b == mark).count();
    let mark = [b',', b';', b'\t'].into_iter().max_by_key(count).expect("there are three");
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(mark)
        .flexible(true)
        .has_headers(false)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut wrong = Vec::new();
    let (mut columns, mut rows) = (Vec::<String>::new(), Vec::new());
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(e) => {
                let line = e.position().map_or(1, csv::Position::line);
                wrong.push(format!("{name}:{line}: this is no list ({e}); save it as CSV"));
                break;
            }
        };
        let line = record.position().map_or(1, csv::Position::line);
        let cells: Vec<String> = record.iter().map(str::to_owned).collect();
        if columns.is_empty() {
            columns = cells.iter().map(|c| c.to_lowercase()).collect();
            let twice = columns.iter().enumerate().find(|(i, c)| columns[..*i].contains(c));
            if let Some((_, column)) = twice {
                wrong.push(format!("{name}:{line}: column '{column}' is there twice"));
            }
            if !columns.iter().any(|c| c == BOX) {
                wrong.push(format!("{name}:{line}: there is no column '{BOX}', which names each box"));
            }
            continue;
        }
        if cells.iter().all(String::is_empty) {
            continue; // as spreadsheets leave them at the end
        }
        if cells.len() != columns.len() {
            let (have, want) = (cells.len(), columns.len());
            wrong.push(format!("{name}:{line}: {have} cells where the heading has {want} columns"));
            continue;
        }
        for (column, cell) in columns.iter().zip(&cells) {
            if cell.is_empty() {
                wrong.push(format!("{name}:{line}: column '{column}' is empty"));
            } else if cell.chars().any(char::is_control) {
                wrong
                    .push(format!("{name}:{line}: column '{column}' has a line break or another invisible sign in it"));
            }
        }
        rows.push(Row { line, cells: columns.iter().cloned().zip(cells).collect() });
    }
    if columns.is_empty() {
        wrong.push(format!("{name}:1: the list is empty; begin with a heading, such as box,hostname,address"));
    } else if rows.is_empty() && wrong.is_empty() {
        wrong.push(format!("{name}:2: there is no box under the heading"));
    }
    if wrong.is_empty() { Ok((columns, rows)) } else { Err(UpkeepError::Written(wrong)) }
}

/// Writes a directory for each box, to be copied onto its card's FAT partition: all of them or none.
///
/// # Errors
/// If `out` is there already, or cannot be written.
pub fn write(cards: &[Card], out: &Path) -> Result<(), UpkeepError> {
    if out.exists() {
        let out = out.display();
        return Err(UpkeepError::Refused(format!("{out} is there already; name a directory that is not, with --out")));
    }
    let mut part = out.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    if part.exists() {
        std::fs::remove_dir_all(part).map_err(UpkeepError::at(part))?;
    }
    for card in cards {
        let dir = part.join(&card.name);
        std::fs::create_dir_all(&dir).map_err(UpkeepError::at(&dir))?;
        let file = dir.join(apply::FILE);
        std::fs::write(&file, sheet::for_laptops(&card.text)).map_err(UpkeepError::at(&file))?;
        for path in &card.beside {
            let copy = dir.join(path.file_name().unwrap_or_default());
            std::fs::copy(path, &copy).map_err(UpkeepError::at(path))?;
        }
    }
    std::fs::rename(part, out).map_err(UpkeepError::at(out))?;
    sync_directory_of(out)
}

#[cfg(test)]
mod tests {
    use super::super::template::new_file;
    use super::*;

    fn made(list: &str, base: &str) -> Result<Vec<Card>, String> {
        make((list, "boxes.csv"), (base, "base.toml"), Path::new("")).map_err(|e| e.to_string())
    }

    fn base() -> String {
        new_file("rpi-4b", true).unwrap()
    }

    #[test]
    fn every_row_is_a_box() {
        let list =
            "box;hostname;address;desk\ngate;gate-1;192.168.1.5/24;\"Gate \"\"A\"\"; north\"\nbar;bar;dhcp;Bar\n;;;\n";
        let cards = made(list, &base()).unwrap();
        assert_eq!(cards.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["gate", "bar"]);
        let config = Config::parse(&cards[0].text, "x").unwrap();
        assert_eq!(config.desks[0].name, "Gate \"A\"; north");
        assert_eq!(config.networks[0].address.to_string(), "192.168.1.5/24");
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("cards");
        let mut incomplete = made(list, &base()).unwrap();
        incomplete[1].beside.push(dir.path().join("gone.toml"));
        write(&incomplete, &out).unwrap_err();
        assert!(!out.exists(), "all of them or none");
        write(&cards, &out).unwrap();
        let file = out.join("bar/crosspatch.toml");
        assert_eq!(apply::check(&file).unwrap().site.hostname.unwrap(), "bar");
        assert!(std::fs::read_to_string(file).unwrap().contains("\r\n"));
        assert!(write(&cards, &out).unwrap_err().to_string().contains("is there already"));
    }

    #[test]
    fn bad_rows_are_named_by_line_and_column() {
        let list = "box,hostname,address,desk\ngate,Gate 1,192.168.1.5/24,A\nbar,bar,192.168.1.300/24,B\nbar,club,192.168.1.5/24,C\n\
            hut,club,192.168.1.7/24,D\nc:,hut,dhcp,E\n";
        let told = made(list, &base()).unwrap_err();
        let wanted = [
            "boxes.csv:2: column 'hostname': 'Gate 1' is no host name",
            "boxes.csv:3: column 'address': '192.168.1.300/24' is no address with its network",
            "boxes.csv:5: column 'hostname': the host name 'club' is that of line 4 too",
            "boxes.csv:6: column 'box': 'c:' is no name of a directory",
        ];
        assert_eq!(told.lines().count(), wanted.len(), "{told}");
        for (line, wanted) in told.lines().zip(wanted) {
            assert!(line.starts_with(wanted), "{told}");
        }
        let twice = made("box,hostname,address,desk\na,a,10.0.0.5/24,A\nA,b,10.0.0.5/24,B\n", &base()).unwrap_err();
        assert!(twice.contains("boxes.csv:3: column 'box': the name 'A' is that of line 2 too"), "{twice}");
        assert!(
            twice.contains("boxes.csv:3: column 'address': the address '10.0.0.5' is that of line 2 too"),
            "{twice}"
        );
    }

    #[test]
    fn a_list_that_is_none_and_places_that_nothing_fills_are_named() {
        let cases = [
            ("", "boxes.csv:1: the list is empty"),
            ("box,hostname\n", "boxes.csv:2: there is no box"),
            ("name,hostname\na,a\n", "boxes.csv:1: there is no column 'box'"),
            ("box,box\na,a\n", "boxes.csv:1: column 'box' is there twice"),
            ("box,hostname,address,desk\na,b,dhcp\n", "boxes.csv:2: 3 cells where the heading has 4"),
            ("box,hostname,address,desk\na,,dhcp,D\n", "boxes.csv:2: column 'hostname' is empty"),
            ("box,hostname,address,desk\na,b,dhcp,\"D\nE\"\n", "boxes.csv:2: column 'desk' has a line break"),
            ("box,hostname,desk\na,b,D\n", "the list has no column 'address'"),
            ("box,hostname,address,desk,key\na,b,dhcp,D,k\n", "boxes.csv:1: column 'key' is used nowhere"),
        ];
        for (list, told) in cases {
            let errors = made(list, &base()).unwrap_err();
            assert!(errors.contains(told), "{list}: {errors}");
        }
        let own = base().replace("id = \"ops\"\n", "id = \"opps\"\n");
        let told = made("box,hostname,address,desk\na,b,dhcp,D\n", &own).unwrap_err();
        assert!(told.starts_with("base.toml:") && told.contains("there is no channel 'ops'"), "{told}");
    }
}
