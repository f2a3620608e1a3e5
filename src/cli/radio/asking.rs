//! Questions to a technician, with answers from a keyboard, a file or `--yes`.

use anyhow::ensure;
use std::io::{BufRead, Write};

/// Who is asked.
pub struct Asking<R, W> {
    answers: R,
    out: W,
    /// Every question has its default for an answer.
    yes: bool,
}

impl<R: BufRead, W: Write> Asking<R, W> {
    /// Asks on `out`, reads one line an answer.
    pub fn new(answers: R, out: W, yes: bool) -> Self {
        Asking { answers, out, yes }
    }

    /// True if nobody is there to look and listen.
    pub fn is_alone(&self) -> bool {
        self.yes
    }

    /// Says something.
    pub fn say(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(writeln!(self.out, "{text}")?)
    }

    /// Waits until somebody is ready.
    pub fn wait(&mut self, what: &str) -> anyhow::Result<()> {
        self.ask(&format!("{what} [Enter]"), "").map(drop)
    }

    /// Asks; an empty answer is the default.
    ///
    /// # Errors
    /// If there is no answer any more.
    pub fn ask(&mut self, question: &str, default: &str) -> anyhow::Result<String> {
        let hint = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        write!(self.out, "? {question}{hint} ")?;
        self.out.flush()?;
        if self.yes {
            writeln!(self.out, "{default}")?;
            return Ok(default.to_owned());
        }
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "nobody answers any more; nothing was changed");
        let answer = line.trim();
        Ok(if answer.is_empty() { default } else { answer }.to_owned())
    }

    /// Asks a question that is answered with yes or no.
    ///
    /// # Errors
    /// As [`Asking::ask`].
    pub fn agree(&mut self, question: &str) -> anyhow::Result<bool> {
        loop {
            match self.ask(question, "y")?.to_lowercase().as_str() {
                "y" | "yes" => return Ok(true),
                "n" | "no" => return Ok(false),
                _ => self.say("  answer y or n")?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_line_is_the_default_and_the_end_of_all_lines_is_an_error() {
        let mut out = Vec::new();
        let mut asking = Asking::new("\nnorth \nmaybe\nn\n".as_bytes(), &mut out, false);
        assert_eq!(asking.ask("Where?", "south").unwrap(), "south");
        assert_eq!(asking.ask("Where?", "south").unwrap(), "north");
        assert!(!asking.agree("Sure?").unwrap(), "maybe is asked again");
        assert!(asking.agree("Sure?").is_err());
        assert!(String::from_utf8(out).unwrap().contains("? Where? [south] "));
    }

    #[test]
    fn with_yes_nothing_is_read() {
        let mut asking = Asking::new("n\n".as_bytes(), Vec::new(), true);
        assert!(asking.agree("Sure?").unwrap() && asking.is_alone());
    }
}
