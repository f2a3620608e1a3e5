//! Text files as people's laptops save them: Windows line ends, byte order marks, UTF-16, tabs.
//!
//! Decides how bytes become text, and says it with the line where they do not.

/// The text of a file, its lines ended by `\n`.
///
/// # Errors
/// If it is no text; the sentence names the line and what to do.
pub fn decode(bytes: &[u8], name: &str) -> Result<String, String> {
    let text = match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => utf8(rest, name)?,
        [0xFF, 0xFE, rest @ ..] => utf16(rest, name, u16::from_le_bytes)?,
        [0xFE, 0xFF, rest @ ..] => utf16(rest, name, u16::from_be_bytes)?,
        bytes => utf8(bytes, name)?,
    };
    Ok(text.replace("\r\n", "\n").replace('\r', "\n"))
}

fn utf8(bytes: &[u8], name: &str) -> Result<String, String> {
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(format!("{name}:{}: this is no text file, or it is damaged; write it anew", line_of(bytes, at)));
    }
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|e| {
        let line = line_of(bytes, e.valid_up_to());
        format!("{name}:{line}: a letter here is not UTF-8; save the file with the encoding UTF-8")
    })
}

fn utf16(bytes: &[u8], name: &str, unit: fn([u8; 2]) -> u16) -> Result<String, String> {
    let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect::<Vec<_>>();
    let damaged = || format!("{name}:1: the file is cut off or damaged; save it with the encoding UTF-8");
    if !bytes.len().is_multiple_of(2) {
        return Err(damaged());
    }
    String::from_utf16(&units).map_err(|_| damaged())
}

fn line_of(bytes: &[u8], at: usize) -> usize {
    bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// What a word processor makes of quotation marks, with the line of the first one outside of a comment.
#[must_use]
pub fn curly_quote(text: &str) -> Option<usize> {
    let code = |line: &str| {
        // What stands before the first curly quote has straight ones at most, so the simplest look at comments will do.
        let before = line.split(['“', '”', '„', '‘', '’']).next().unwrap_or_default();
        before.len() < line.len() && !before.contains('#') && before.matches('"').count().is_multiple_of(2)
    };
    text.lines().position(code).map(|place| place + 1)
}

/// Text for laptops: with Windows line ends, which every editor shows right.
#[must_use]
pub fn for_laptops(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\n', "\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_as_any_laptop_saves_it() {
        let plain = "id = \"fête\"\n\tname = \"x\"\n";
        let windows = plain.replace('\n', "\r\n");
        let utf16 = |big: bool| {
            let unit = |u: u16| if big { u.to_be_bytes() } else { u.to_le_bytes() };
            format!("\u{feff}{windows}").encode_utf16().flat_map(unit).collect::<Vec<u8>>()
        };
        let marked = [b"\xEF\xBB\xBF", windows.as_bytes()].concat();
        let old_mac = plain.replace('\n', "\r");
        let all = [plain.into(), windows.clone().into(), old_mac.into(), marked, utf16(false), utf16(true)];
        for bytes in all {
            assert_eq!(decode(&bytes, "x.toml").unwrap(), plain);
        }
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_line() {
        assert!(decode(b"a\r\nK\xFCche", "x.toml").unwrap_err().starts_with("x.toml:2: a letter here is not UTF-8"));
        assert!(decode(b"a\n\0\0\0", "x.toml").unwrap_err().starts_with("x.toml:2: this is no text"));
        assert!(decode(b"\xFF\xFEa", "x.toml").unwrap_err().contains("cut off"));
    }

    #[test]
    fn curly_quotes_are_found_where_they_matter() {
        assert_eq!(curly_quote("a = \"x\"\nb = “x”\n"), Some(2));
        assert_eq!(curly_quote("a = \"it’s “so”\"\n# “no”\n"), None);
    }
}
