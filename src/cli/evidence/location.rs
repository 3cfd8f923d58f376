//! The folders that the commands read, and their errors.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::config_file::ConfigFile;
use crate::cli::connector_name;
use crate::cli::output::show_faults;
use crate::config::{self, Config, EvidencePath};
use crate::policy::location::{Located, Location};
use crate::storage::evidence::{EvidenceReader, NodeChain};
use crate::storage::postgresql::DatabaseAccess;

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
    /// Only the chain of this node, where the evidence of several is in a database
    #[arg(long, value_name = "NAME", conflicts_with = "folder")]
    node: Option<String>,
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
    /// The chains of the nodes, if the evidence is in a database, and not in the folder.
    pub(super) chains: Option<Vec<NodeChain>>,
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
                chains: None,
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
        let chains = self.chains(&config)?;
        if chains.is_none() && self.node.is_some() {
            return Err(fail(
                "--node: the evidence is not in a database ([spool] url)",
                2,
            ));
        }
        let Located { value, location } = config.evidence.path;
        match value {
            EvidencePath::Folder(path) => Ok(EvidenceFolder {
                path,
                key: Some(location),
                connectors: Some(names),
                chains,
            }),
            EvidencePath::Off => {
                eprintln!("gatepost evidence: {location}: path is \"\": no evidence is written");
                Err(ExitCode::from(2))
            }
        }
    }
}

impl EvidenceLocation {
    /// Returns the chains in the database of a configuration, or that of the node that is asked for;
    /// `None` if it has no database.
    fn chains(&self, config: &Config) -> Result<Option<Vec<NodeChain>>, ExitCode> {
        let access = DatabaseAccess::load(config).map_err(|faults| {
            show_faults(&self.file.config, &faults);
            ExitCode::from(2)
        })?;
        let (Some(access), _) = access else {
            return Ok(None);
        };
        let reader = EvidenceReader::new(|| access.database());
        let found = reader.and_then(|reader| reader.chains());
        let mut chains = found.map_err(|error| fail(&error.to_string(), 1))?;
        let Some(node) = &self.node else {
            return Ok(Some(chains));
        };
        let names: Vec<_> = chains.iter().map(|chain| chain.name().to_owned()).collect();
        chains.retain(|chain| chain.name() == node);
        if chains.is_empty() {
            let names = names.join(", ");
            let text = format!("there is no evidence of a node {node}; there is of: {names}");
            return Err(fail(&text, 2));
        }
        Ok(Some(chains))
    }
}

/// Prints an error, and returns the exit status.
pub(super) fn fail(error: &str, status: u8) -> ExitCode {
    eprintln!("gatepost evidence: {error}");
    ExitCode::from(status)
}
