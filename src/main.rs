//! Arguments and exit status.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    gatepost::cli::Cli::parse().run()
}
