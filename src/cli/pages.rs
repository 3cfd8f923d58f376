//! `gatepost pages`: writes the manual pages and shell completions of the commands.
//!
//! The command is hidden, since only packaging needs it. gatepost.toml(5) is written by hand, in
//! `config/package/`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;

/// Write manual pages and shell completions
#[derive(Debug, Args)]
pub(super) struct PagesArguments {
    /// The folder in which man/ and completions/ are created
    folder: PathBuf,
}

pub(super) fn run(arguments: &PagesArguments) -> ExitCode {
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
