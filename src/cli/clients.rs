//! `gatepost clients`: who is held back by a limit, and letting somebody go on.
//!
//! It asks a running daemon over the admin socket. Exit status: 0; 1 where nobody is held back that was named, or no
//! daemon answers; 2 where arguments or configuration cannot be used.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use ipnet::IpNet;
use jiff::Timestamp;

use super::queue::list::Document;
use super::queue::words::{age, plain};
use super::socket::{Client, SocketError};
use super::{ConfigFile, show};
use crate::admin::api::{HeldClient, ReleaseRequest, ReleaseResponse};

/// See which clients are held back by a limit, or let one go on
///
/// Clients that are not of [relay] networks have limits on connections, messages, recipients and TLS handshakes a
/// minute, by address and by network ([limits] in the configuration). A client stays on the list until it has kept to
/// the limit for an hour. The commands speak to the running daemon over its admin socket.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the clients that were held back in the last hour, the last first
    List {
        #[command(flatten)]
        how: How,
    },
    /// Let a client go on at once: what it did so far is forgotten
    ReleaseRequest {
        /// An address, or a network
        #[arg(value_name = "CLIENT", value_parser = client, required_unless_present = "all")]
        client: Option<String>,
        /// Every client
        #[arg(long, conflicts_with = "client")]
        all: bool,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, Args)]
struct How {
    /// Answer with one JSON document: an array of clients
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

fn client(text: &str) -> Result<String, String> {
    let is_one = text.parse::<std::net::IpAddr>().is_ok() || text.parse::<IpNet>().is_ok();
    is_one.then(|| text.to_owned()).ok_or_else(|| "write an address or a network, such as 192.0.2.0/24".to_owned())
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let (Command::List { how } | Command::ReleaseRequest { how, .. }) = &arguments.command;
    let client = match Client::of(&how.file.config, "clients") {
        Ok(client) => client,
        Err(status) => return status,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("gatepost clients: the system gives us no threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match &arguments.command {
            Command::List { how } => list(&client, how.json).await,
            Command::ReleaseRequest { client: which, how, .. } => release(&client, which.as_deref(), how.json).await,
        }
    });
    done.unwrap_or_else(|error| {
        eprintln!("gatepost clients: {error}");
        ExitCode::FAILURE
    })
}

async fn list(client: &Client, json: bool) -> Result<ExitCode, SocketError> {
    let held: Vec<HeldClient> = client.get("/v1/clients").await?;
    show_all(&held, json, "no client is held back\n");
    Ok(ExitCode::SUCCESS)
}

async fn release(client: &Client, which: Option<&str>, json: bool) -> Result<ExitCode, SocketError> {
    let order = ReleaseRequest { client: which.map(str::to_owned) };
    let ReleaseResponse { released } = client.post("/v1/clients/release", &order).await?;
    let nobody = match which {
        Some(which) => format!("{which} was not held back\n"),
        None => "no client was held back\n".to_owned(),
    };
    if json || released.is_empty() {
        show_all(&released, json, &nobody);
    } else {
        for one in &released {
            show(&format!("released {} ({})\n", plain(&one.client), one.limit));
        }
    }
    let no = which.is_some() && released.is_empty();
    Ok(if no { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn show_all(held: &[HeldClient], json: bool, nobody: &str) {
    if json {
        let mut document = Document::begin(true);
        for one in held {
            document.add(one);
        }
        document.end();
    } else if held.is_empty() {
        show(nobody);
    } else {
        show(&table(held, Timestamp::now()));
    }
}

fn table(held: &[HeldClient], now: Timestamp) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["client", "limit", "since", "last", "times"]);
    for one in held {
        let ago = |at| format!("{} ago", age(at, now));
        table.add_row([plain(&one.client), plain(&one.limit), ago(one.since), ago(one.last), one.times.to_string()]);
    }
    // There is no frame, nor should there be blanks in its place.
    let rows = table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned() + "\n");
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_client() {
        let held = r#"[{"client":"192.0.2.0/24","limit":"messages_per_minute","since":"2026-11-26T00:00:00Z",
            "last":"2026-11-26T01:29:30Z","times":812}]"#;
        let held: Vec<HeldClient> = serde_json::from_str(held).expect("a list");
        assert_eq!(
            table(&held, "2026-11-26T01:30:00Z".parse().expect("a time")),
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
