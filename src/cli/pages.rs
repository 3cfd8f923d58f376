//! `gatepost pages`: the manual pages and shell completions of the commands, for whoever makes a package.
//!
//! Hidden, for nobody else needs it. gatepost.toml(5) is written by hand, in `config/package/`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;

/// Write manual pages and shell completions
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where they are written: man/ and completions/ are made there
    folder: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match write(&arguments.folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gatepost pages: {}: {error}", arguments.folder.display());
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> io::Result<()> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    std::fs::create_dir_all(&man)?;
    std::fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(Cli::command(), &man)?;
    let mut command = Cli::command();
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut command, "gatepost", &completions)?;
    }
    Ok(())
}
