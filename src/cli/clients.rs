//! `gatepost clients`: lists the clients that are held back by a limit, and releases them.
//!
//! It asks the running daemon over the admin socket. Exit status: 0; 1 if the named client is not
//! held back or no daemon answers; 2 for unusable arguments or an unusable configuration.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use ipnet::IpNet;
use jiff::Timestamp;

use super::admin_client::{AdminClient, SocketError};
use super::config_file::ConfigFile;
use super::format::{Table, age, plain, width};
use super::json::JsonArray;
use super::output::show;
use super::runtime::run_with_daemon;
use crate::admin::api::{HeldClient, ReleaseRequest, ReleaseResponse};

/// List the clients that are held back by a limit, or release them
///
/// For clients outside of [relay] networks, connections, messages, recipients (and those that are
/// unknown or cannot be checked) and TLS handshakes per minute are limited, by address and by network
/// ([limits] in the configuration). Users that log in have limits of an hour, and a limit on failed
/// logins. A client stays on the list until it has kept to the limit for an hour. The commands ask
/// the running daemon over its admin socket.
#[derive(Debug, Args)]
pub(super) struct ClientsArguments {
    #[command(subcommand)]
    command: ClientsCommand,
}

#[derive(Debug, Subcommand)]
enum ClientsCommand {
    /// List the clients that were held back in the last hour, the latest first
    List {
        #[command(flatten)]
        options: ClientsOptions,
    },
    /// Release a client or a user at once: its counts are reset, those of failed logins too
    Release {
        /// An address, or a network
        #[arg(value_name = "CLIENT", value_parser = client, required_unless_present_any = ["all", "user"])]
        client: Option<String>,
        /// The user of this name, which logs in
        #[arg(long, value_name = "NAME", conflicts_with = "client")]
        user: Option<String>,
        /// Every client and user
        #[arg(long, conflicts_with_all = ["client", "user"])]
        all: bool,
        #[command(flatten)]
        options: ClientsOptions,
    },
}

#[derive(Debug, Args)]
struct ClientsOptions {
    /// Print one JSON document: an array of clients
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// Checks an argument that must be an address or a network.
fn client(text: &str) -> Result<String, String> {
    let is_client = text.parse::<std::net::IpAddr>().is_ok() || text.parse::<IpNet>().is_ok();
    is_client
        .then(|| text.to_owned())
        .ok_or_else(|| "write an address or a network, such as 192.0.2.0/24".to_owned())
}

pub(super) fn run(arguments: &ClientsArguments) -> ExitCode {
    let (ClientsCommand::List { options } | ClientsCommand::Release { options, .. }) =
        &arguments.command;
    run_with_daemon(
        "clients",
        &options.file.config,
        async |daemon| match &arguments.command {
            ClientsCommand::List { options } => list(&daemon, options.json).await,
            ClientsCommand::Release {
                client,
                user,
                options,
                ..
            } => {
                let order = ReleaseRequest {
                    client: client.clone(),
                    user: user.clone(),
                };
                release(&daemon, &order, options.json).await
            }
        },
    )
}

async fn list(daemon: &AdminClient, json: bool) -> Result<ExitCode, SocketError> {
    let held: Vec<HeldClient> = daemon.get("/v1/clients").await?;
    show_clients(&held, json, "no client is held back\n");
    Ok(ExitCode::SUCCESS)
}

/// Releases a client or a user, or all of them if the order names none.
async fn release(
    daemon: &AdminClient,
    order: &ReleaseRequest,
    json: bool,
) -> Result<ExitCode, SocketError> {
    let ReleaseResponse { released } = daemon.post("/v1/clients/release", order).await?;
    let if_none = match (&order.client, &order.user) {
        (Some(client), _) => format!("{client} was not held back\n"),
        (None, Some(user)) => format!("user {} was not held back\n", plain(user)),
        (None, None) => "no client was held back\n".to_owned(),
    };
    if json || released.is_empty() {
        show_clients(&released, json, &if_none);
    } else {
        for held in &released {
            show(&format!(
                "released {} ({})\n",
                plain(&held.client),
                held.limit
            ));
        }
    }
    let is_named = order.client.is_some() || order.user.is_some();
    let not_found = is_named && released.is_empty();
    Ok(if not_found {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Prints clients as a table or as JSON. `if_none` is printed in place of an empty table.
fn show_clients(held: &[HeldClient], json: bool, if_none: &str) {
    if json {
        let mut array = JsonArray::begin(true);
        for client in held {
            array.add(client);
        }
        array.end();
    } else if held.is_empty() {
        show(if_none);
    } else {
        show(&table(held, Timestamp::now()).render(width()));
    }
}

/// Returns a table with a line for each client.
fn table(held: &[HeldClient], now: Timestamp) -> Table {
    let mut table = Table::new(&["client", "limit", "since", "last", "times"]);
    for HeldClient {
        client,
        limit,
        since,
        last,
        times,
    } in held
    {
        let ago = |at| format!("{} ago", age(at, now));
        table.row([
            plain(client),
            plain(limit),
            ago(*since),
            ago(*last),
            times.to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_client() {
        let held = r#"[{"client":"192.0.2.0/24","limit":"messages_per_minute","since":"2026-11-26T00:00:00Z",
            "last":"2026-11-26T01:29:30Z","times":812}]"#;
        let held: Vec<HeldClient> = serde_json::from_str(held).expect("a list");
        assert_eq!(
            table(&held, "2026-11-26T01:30:00Z".parse().expect("a time")).render(80),
            "client        limit                since       last     times\n\
             192.0.2.0/24  messages_per_minute  1h 30m ago  30s ago  812\n"
        );
    }

    #[test]
    fn a_client_is_an_address_or_a_network() {
        for good in ["192.0.2.1", "192.0.2.0/24", "2001:db8::1", "2001:db8::/48"] {
            assert_eq!(client(good).as_deref(), Ok(good));
        }
        for bad in ["", "mail.example.org", "192.0.2.0/33", "192.0.2"] {
            assert!(client(bad).is_err(), "{bad}");
        }
    }
}
