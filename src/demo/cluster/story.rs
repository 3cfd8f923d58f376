//! The story: mail waits at three relays, one of them dies, and the others deliver what it left.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::super::cases::SENDER;
use super::super::peer::{DemoPeer, submit};
use super::arrivals::{Arrivals, subject};
use super::error::ClusterDemoError;
use super::stage::{ClusterStage, LEASE, NODES};
use crate::admin::api::nodes::NodeDetails;

/// The number of messages that each relay accepts.
const MESSAGES: usize = 20;
/// The place of the relay that dies.
const VICTIM: usize = 1;
/// The time limit for each part of the story.
const PART_TIME: Duration = Duration::from_mins(1);
/// The interval at which the nodes are listed.
const INTERVAL: Duration = Duration::from_millis(100);
/// The time in which a second copy of a message would arrive.
const SETTLE_TIME: Duration = Duration::from_millis(1500);

/// The clock of the story, which stands before each line.
struct StoryClock(Instant);

impl StoryClock {
    fn print(&self, line: &str) {
        println!("{:5.1} s  {line}", self.0.elapsed().as_secs_f64());
    }
}

/// Plays the story. Returns true if each message arrived exactly once, and all under TLS.
pub(super) async fn play(
    stage: &mut ClusterStage,
    began: Instant,
) -> Result<bool, ClusterDemoError> {
    let clock = StoryClock(began);
    clock.print(&format!(
        "{NODES} relays share a queue in PostgreSQL, with a lease of {LEASE}. The partner's server is down."
    ));
    send(stage).await?;
    clock.print(&format!(
        "Each relay has accepted {MESSAGES} messages to partner.example. They wait:"
    ));
    let before = stage.nodes[0].list().await?;
    print_nodes(&before);
    let victim = &mut stage.nodes[VICTIM];
    let (name, id) = (victim.name.clone(), victim.id());
    victim.kill().await?;
    clock.print(&format!(
        "{name} dies: kill -9 {id}. {}",
        lease_left(&before, &name)
    ));
    listed(stage, &name, |node| !node.alive).await?;
    clock.print(&format!(
        "The lease of {name} has ended; the others may have its mail."
    ));
    let after = listed(stage, &name, |node| node.messages == 0).await?;
    clock.print(&adoptions(&before, &after));
    print_nodes(&after);
    let Some(partner) = stage.bring_partner_up()? else {
        return Ok(false);
    };
    clock.print("The partner's server is up.");
    let arrivals = wait_for_arrivals(&partner).await;
    clock.print(&verdict(&arrivals));
    Ok(arrivals.arrived == NODES * MESSAGES && arrivals.repeated.is_empty() && arrivals.clear == 0)
}

/// Sends the same number of messages to each relay, under TLS.
async fn send(stage: &ClusterStage) -> Result<(), ClusterDemoError> {
    for number in 1..=NODES * MESSAGES {
        let node = &stage.nodes[number % NODES];
        let tls = Some(stage.client.clone());
        let (to, subject) = (format!("bob{number}@partner.example"), subject(number));
        let submission = submit(node.address, tls, SENDER, &[&to], &subject).await?;
        if !submission.is_accepted() {
            return Err(ClusterDemoError::Rejected {
                relay: node.name.clone(),
                reply: submission.reply,
            });
        }
    }
    Ok(())
}

/// Prints a line for each node.
fn print_nodes(nodes: &[NodeDetails]) {
    for node in nodes {
        let state = if node.alive { "alive" } else { "dead" };
        println!(
            "           {}  {state:5}  {:3} messages",
            node.name, node.messages
        );
    }
}

/// Returns a sentence about the time that is left of a node's lease.
fn lease_left(nodes: &[NodeDetails], name: &str) -> String {
    let node = nodes.iter().find(|node| node.name == name);
    let left = node.map(|node| node.lease_end.duration_since(Timestamp::now()));
    let seconds = left.map_or(0.0, |left| left.as_secs_f64().max(0.0));
    format!("Its mail stays its own until its lease ends, in {seconds:.1} s.")
}

/// Waits until the list of nodes shows what is expected of one of them.
async fn listed(
    stage: &ClusterStage,
    name: &str,
    is_expected: impl Fn(&NodeDetails) -> bool,
) -> Result<Vec<NodeDetails>, ClusterDemoError> {
    let deadline = Instant::now() + PART_TIME;
    while Instant::now() < deadline {
        let nodes = stage.nodes[0].list().await?;
        if nodes
            .iter()
            .any(|node| node.name == name && is_expected(node))
        {
            return Ok(nodes);
        }
        tokio::time::sleep(INTERVAL).await;
    }
    Err(ClusterDemoError::TooLate(
        "the dead relay's mail was not adopted",
    ))
}

/// Returns a sentence about who has adopted how many messages.
fn adoptions(before: &[NodeDetails], after: &[NodeDetails]) -> String {
    let adopted = after.iter().filter_map(|node| {
        let earlier = before.iter().find(|earlier| earlier.name == node.name)?;
        let more = node.messages.checked_sub(earlier.messages)?;
        (more > 0).then(|| format!("{} has adopted {more}", node.name))
    });
    let adopted: Vec<_> = adopted.collect();
    format!("{} of its messages:", adopted.join(", "))
}

/// Waits until all messages have arrived, and a little longer for second copies.
async fn wait_for_arrivals(partner: &DemoPeer) -> Arrivals {
    let messages = NODES * MESSAGES;
    let deadline = Instant::now() + PART_TIME;
    while Arrivals::of(&partner.log(), messages).arrived < messages {
        if Instant::now() > deadline {
            break;
        }
        tokio::time::sleep(INTERVAL).await;
    }
    tokio::time::sleep(SETTLE_TIME).await;
    Arrivals::of(&partner.log(), messages)
}

/// Returns a sentence about what has arrived.
fn verdict(arrivals: &Arrivals) -> String {
    let repeated = match arrivals.repeated.len() {
        0 => "none twice",
        _ => "some TWICE (they were being sent when the relay died)",
    };
    let clear = match arrivals.clear {
        0 => "none in the clear",
        _ => "some IN THE CLEAR",
    };
    format!(
        "{} of {} messages have arrived, {repeated}, {clear}.",
        arrivals.arrived,
        NODES * MESSAGES
    )
}
