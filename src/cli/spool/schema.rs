//! `gatepost spool schema`: prints the SQL that makes the schema of a shared spool.

use std::process::ExitCode;

use clap::Args;

use super::location::fail;
use crate::cli::output::show;
use crate::storage::postgresql::schema_sql;

/// The longest name of a role in octets: the server cuts longer ones off.
const ROLE_MAX: usize = 63;

#[derive(Debug, Args)]
pub(super) struct SchemaArguments {
    /// The role by which relays log in, and which may use the schema but not change it
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
}

pub(super) fn run(arguments: &SchemaArguments) -> ExitCode {
    let role = arguments.role.as_deref();
    let is_name =
        |role: &str| (1..=ROLE_MAX).contains(&role.len()) && !role.contains(char::is_control);
    if role.is_some_and(|role| !is_name(role)) {
        return fail(&format!(
            "--role: a role has 1 to {ROLE_MAX} octets in its name"
        ));
    }
    show(&schema_sql(role));
    ExitCode::SUCCESS
}
