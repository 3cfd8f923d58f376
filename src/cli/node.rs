//! `gatepost node`: lists the relays that share a spool, drains one, and removes one that is gone.
//!
//! It asks the running daemon over the admin socket. Exit status: 0; 1 if the order is refused, the
//! relay has a spool of its own, or no daemon answers; 2 for unusable arguments or an unusable
//! configuration.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::admin_client::{AdminClient, SocketError};
use super::config_file::ConfigFile;
use super::format::{Table, age, plain, width};
use super::json::JsonArray;
use super::output::show;
use super::runtime::run_with_daemon;
use crate::admin::api::nodes::{
    ConfigComparison, NodeDetails, NodeDrainRequest, NodeDrainResponse, NodeRemovalRequest,
    NodeRemovalResponse,
};

/// List the relays that share a spool, drain one, or remove one that is gone
///
/// Relays with the same [spool] url are nodes of one cluster. Each delivers the messages that it has
/// accepted; when it dies, the others take over those for which their connectors are the same. The
/// commands ask the running daemon of any node over its admin socket.
#[derive(Debug, Args)]
pub(super) struct NodeArguments {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// List the nodes, and compare their configurations with that of the one that answers
    List {
        /// Print one JSON document: an array of nodes
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Have a node hand its queue to the others and accept no mail
    ///
    /// The node rejects new mail with 451 and is not ready, lets running deliveries end, and gives what
    /// waits to the other nodes within seconds. Messages that none of them may send, since their
    /// connectors differ, stay: the node goes on delivering them. The drain lasts until --end, also
    /// over restarts. The last node that takes mail is not drained.
    Drain {
        /// The name of the node; the one that answers by default
        name: Option<String>,
        /// End the drain: the node accepts mail again
        #[arg(long)]
        end: bool,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Remove a node that is dead and does not come back
    Remove {
        /// The name of the node
        name: String,
        /// Have the other nodes deliver what it left by their own rules, though these differ
        #[arg(long)]
        hand_over: bool,
        #[command(flatten)]
        file: ConfigFile,
    },
}

pub(super) fn run(arguments: &NodeArguments) -> ExitCode {
    let (NodeCommand::List { file, .. }
    | NodeCommand::Drain { file, .. }
    | NodeCommand::Remove { file, .. }) = &arguments.command;
    run_with_daemon("node", &file.config, async |daemon| {
        match &arguments.command {
            NodeCommand::List { json, .. } => list(&daemon, *json).await,
            NodeCommand::Drain { name, end, .. } => {
                let order = NodeDrainRequest {
                    name: name.clone(),
                    end: *end,
                };
                drain(&daemon, &order).await
            }
            NodeCommand::Remove {
                name, hand_over, ..
            } => {
                let order = NodeRemovalRequest {
                    name: name.clone(),
                    hand_over: *hand_over,
                };
                remove(&daemon, &order).await
            }
        }
    })
}

async fn list(daemon: &AdminClient, json: bool) -> Result<ExitCode, SocketError> {
    let nodes: Vec<NodeDetails> = daemon.get("/v1/nodes").await?;
    if json {
        let mut array = JsonArray::begin(true);
        for node in &nodes {
            array.add(node);
        }
        array.end();
    } else {
        show(&table(&nodes, Timestamp::now()).render(width()));
        show(&differences(&nodes));
    }
    Ok(ExitCode::SUCCESS)
}

async fn remove(daemon: &AdminClient, order: &NodeRemovalRequest) -> Result<ExitCode, SocketError> {
    let NodeRemovalResponse { messages } = daemon.post("/v1/nodes/remove", order).await?;
    show(&format!("removed {}", plain(&order.name)));
    show(&match messages {
        0 => "\n".to_owned(),
        1 => "; its message is the other nodes'\n".to_owned(),
        more => format!("; its {more} messages are the other nodes'\n"),
    });
    Ok(ExitCode::SUCCESS)
}

async fn drain(daemon: &AdminClient, order: &NodeDrainRequest) -> Result<ExitCode, SocketError> {
    let NodeDrainResponse { name, messages } = daemon.post("/v1/nodes/drain", order).await?;
    let name = plain(&name);
    show(&match (order.end, messages) {
        (true, _) => format!("{name} accepts mail again\n"),
        (false, 0) => format!("{name} drains; it has no messages\n"),
        (false, 1) => format!("{name} drains; its message goes to the other nodes\n"),
        (false, more) => format!("{name} drains; its {more} messages go to the other nodes\n"),
    });
    Ok(ExitCode::SUCCESS)
}

/// Returns a table with a line for each node.
fn table(nodes: &[NodeDetails], now: Timestamp) -> Table {
    let mut table = Table::new(&["node", "number", "state", "messages", "configuration"]);
    for node in nodes {
        let mut state = match (node.alive, node.draining) {
            (true, false) => "alive".to_owned(),
            (true, true) => "draining".to_owned(),
            (false, _) if node.lease_end < now => {
                format!("dead for {}", age(node.lease_end, now))
            }
            (false, _) => "dead".to_owned(),
        };
        if node.own {
            state.push_str(", answers");
        }
        let config = match node.config {
            ConfigComparison::Same => "same",
            ConfigComparison::Differs => "differs",
            ConfigComparison::Unknown => "not known",
        };
        table.row([
            plain(&node.name),
            node.number.to_string(),
            state,
            node.messages.to_string(),
            config.to_owned(),
        ]);
    }
    table
}

/// Returns a line for each node whose configuration differs.
fn differences(nodes: &[NodeDetails]) -> String {
    let differing = nodes.iter().filter(|node| !node.differing.is_empty());
    let lines = differing.map(|node| {
        let connectors: Vec<_> = node.differing.iter().map(|name| plain(name)).collect();
        format!(
            "{} differs in: {}. Mail by these connectors is not taken over.\n",
            plain(&node.name),
            connectors.join(", ")
        )
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_node_and_one_for_each_that_differs() {
        let nodes = r#"[
            {"name":"a","number":1,"own":true,"alive":true,"lease_end":"2026-11-26T01:30:20Z",
                "draining":false,"messages":12,"config":"same","differing":[]},
            {"name":"b","number":2,"own":false,"alive":true,"lease_end":"2026-11-26T01:30:20Z",
                "draining":true,"messages":0,"config":"differs","differing":["bank","default"]},
            {"name":"c","number":7,"own":false,"alive":false,"lease_end":"2026-11-26T01:20:00Z",
                "draining":false,"messages":3,"config":"unknown","differing":[]}]"#;
        let nodes: Vec<NodeDetails> = serde_json::from_str(nodes).expect("a list");
        let now = "2026-11-26T01:30:00Z".parse().expect("a time");
        assert_eq!(
            table(&nodes, now).render(80) + &differences(&nodes),
            "node  number  state           messages  configuration\n\
             a     1       alive, answers  12        same\n\
             b     2       draining        0         differs\n\
             c     7       dead for 10m    3         not known\n\
             b differs in: bank, default. Mail by these connectors is not taken over.\n"
        );
    }
}
