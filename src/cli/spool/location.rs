//! The folder of the spool, and the errors of commands that work on it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::cli::config_file::ConfigFile;
use crate::cli::output::show_faults;
use crate::cli::user::User;
use crate::config;
use crate::storage::spool::OfflineError;

/// The folder of the spool.
#[derive(Debug, Args)]
pub(super) struct SpoolLocation {
    /// The folder of the spool, in place of the one that the configuration names
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    file: ConfigFile,
}

impl SpoolLocation {
    /// Returns the folder. The configuration is read only if `--folder` is not given.
    ///
    /// # Errors
    /// Exit status 2, after the error has been printed.
    pub(super) fn find(&self) -> Result<PathBuf, ExitCode> {
        if let Some(folder) = &self.folder {
            return Ok(folder.clone());
        }
        let (config, _) = config::read(&self.file.config).map_err(|faults| {
            show_faults(&self.file.config, &faults);
            ExitCode::from(2)
        })?;
        if config.database.is_some() {
            return Err(fail(
                "the queue is in the database of [spool] url, and not in a folder\n\
                 Use the commands of PostgreSQL for it; --folder DIR names the folder of an earlier queue.",
            ));
        }
        Ok(config.spool.value)
    }
}

/// Prints the error of a command that did nothing, with its remedy, and returns exit status 2.
pub(super) fn fail(error: &str) -> ExitCode {
    eprintln!("gatepost spool: {error}");
    ExitCode::from(2)
}

/// Returns the text of an error and its remedy.
pub(super) fn with_remedy(error: &OfflineError) -> String {
    match error {
        OfflineError::InUse { .. } => format!(
            "{error}\nStop it first, with its socket, which would start it again: systemctl stop gatepost.socket gatepost"
        ),
        OfflineError::OtherUser { folder, owner, .. } => {
            format!("{error}\n{}", as_owner(folder, *owner))
        }
        OfflineError::NoSpool(_) | OfflineError::RepairPending(_) | OfflineError::Spool(_) => {
            error.to_string()
        }
    }
}

/// Returns the remedy for the spool of another user: files that we make there must be that user's.
fn as_owner(folder: &Path, owner: u32) -> String {
    let name = User::with_id(owner).map_or_else(|| format!("'#{owner}'"), |user| user.name);
    let folder = folder.display();
    format!("Run the command as the owner of {folder}: sudo -u {name} gatepost spool …")
}
