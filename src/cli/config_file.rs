//! The `--config` option.

use std::path::PathBuf;

use clap::Args;

/// The path of the configuration file where `--config` is not given.
pub(super) const CONFIG_FILE: &str = "/etc/gatepost/gatepost.toml";

/// The `--config` option, which every command has.
#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    pub(super) config: PathBuf,
}
