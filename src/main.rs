//! The daemon and its tools.

use std::process::ExitCode;

fn main() -> ExitCode {
    crosspatch::cli::main()
}
