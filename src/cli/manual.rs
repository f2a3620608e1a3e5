//! Man pages and shell completions, made from the same description that arguments are read by.

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;
use std::path::Path;

/// Writes `crosspatch.1`, a page for every command and the completions of bash, zsh and fish.
///
/// # Errors
/// If the directory cannot be written.
pub fn write(command: Command, dir: &Path) -> anyhow::Result<()> {
    let command = command.disable_help_subcommand(true); // which would be a page for every page
    let whole = |e| -> anyhow::Result<()> { Err(e).with_context(|| format!("{} cannot be written", dir.display())) };
    write_all(command, dir).or_else(whole)
}

fn write_all(mut command: Command, dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut command, "crosspatch", dir)?;
    }
    clap_mangen::generate_to(command, dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    #[test]
    fn every_command_has_a_page_and_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        write(Cli::command(), dir.path()).unwrap();
        let page = std::fs::read_to_string(dir.path().join("crosspatch.1")).unwrap();
        let completed = std::fs::read_to_string(dir.path().join("crosspatch.bash")).unwrap();
        for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            let name = command.get_name();
            assert!(dir.path().join(format!("crosspatch-{name}.1")).exists(), "{name}");
            let in_page = name.replace('-', "\\-");
            assert!(page.contains(&format!("crosspatch\\-{in_page}(1)")), "{name}: {page}");
            assert!(completed.contains(name), "{name}");
        }
        for none in ["crosspatch-manual.1", "crosspatch-help.1", "crosspatch-audit-help.1"] {
            assert!(!dir.path().join(none).exists(), "{none}");
        }
    }
}
