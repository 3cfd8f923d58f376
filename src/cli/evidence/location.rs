//! The folders that the commands read, and their errors.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::config_file::ConfigFile;
use crate::cli::connector_name;
use crate::cli::output::show_faults;
use crate::config::{self, EvidencePath};
use crate::policy::location::{Located, Location};

/// The archives that are read as well.
#[derive(Debug, Args)]
pub(super) struct ArchiveFolders {
    /// A folder to which earlier days were archived, read before the evidence folder; may be given
    /// more than once
    #[arg(long = "archive", value_name = "DIR")]
    pub(super) folders: Vec<PathBuf>,
}

/// The folder of the evidence.
#[derive(Debug, Args)]
pub(super) struct EvidenceLocation {
    /// The folder with the files, in place of the one that the configuration names
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    pub(super) file: ConfigFile,
}

/// The folder that a command reads.
pub(super) struct EvidenceFolder {
    pub(super) path: PathBuf,
    /// The position of `[evidence] path`, if the configuration names the folder.
    pub(super) key: Option<Location>,
    /// The names of the connectors, if the configuration was read.
    pub(super) connectors: Option<Vec<String>>,
}

impl EvidenceLocation {
    /// Returns the folder. The configuration is read only if `--folder` is not given.
    ///
    /// # Errors
    /// Exit status 2, after the error has been printed.
    pub(super) fn find(&self) -> Result<EvidenceFolder, ExitCode> {
        if let Some(folder) = &self.folder {
            return Ok(EvidenceFolder {
                path: folder.clone(),
                key: None,
                connectors: None,
            });
        }
        let (config, _) = config::read(&self.file.config).map_err(|faults| {
            show_faults(&self.file.config, &faults);
            ExitCode::from(2)
        })?;
        let names = connector_name::all(&config)
            .iter()
            .map(|connector| connector.name.clone())
            .collect();
        let Located { value, location } = config.evidence.path;
        match value {
            EvidencePath::Folder(path) => Ok(EvidenceFolder {
                path,
                key: Some(location),
                connectors: Some(names),
            }),
            EvidencePath::Off => {
                eprintln!("gatepost evidence: {location}: path is \"\": no evidence is written");
                Err(ExitCode::from(2))
            }
        }
    }
}

/// Prints an error, and returns the exit status.
pub(super) fn fail(error: &str, status: u8) -> ExitCode {
    eprintln!("gatepost evidence: {error}");
    ExitCode::from(status)
}
