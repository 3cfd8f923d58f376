//! The demo: a relay and its peers in one process, which play every case of opportunistic, forced,
//! published and remembered TLS over TCP. It uses only loopback and a temporary folder.
//!
//! The relay is the real one, started from a real configuration file. The results in the table are
//! what the peers received and what the relay recorded, compared with what each policy promises.
//!
//! `cluster` is a demo of its own: several relays with one queue, one of which dies.

mod attempts;
mod authority;
mod cases;
mod cluster;
mod configuration;
mod error;
mod peer;
mod play;
pub mod policy_host;
mod publishing;
mod stage;
mod table;
pub mod zones;

use std::io::IsTerminal as _;

pub use cluster::{ClusterDemoError, play_cluster};
pub use error::DemoError;

use cases::{DOWNGRADED, OUTGOING, PUBLISHERS};
use stage::DemoStage;

/// Plays all cases and prints the table. With `keep`, relay and peers then run until Ctrl-C.
///
/// Returns true if every outcome is the one that its policy promises.
///
/// # Errors
/// [`DemoError`] if the demo could not be completed.
pub async fn play(keep: bool) -> Result<bool, DemoError> {
    let stage = DemoStage::start().await?;
    println!(
        "Gatepost {}: one relay on {}, and its peers. Playing …",
        env!("CARGO_PKG_VERSION"),
        stage.relay
    );
    let results = play::play_all(&stage).await?;
    table::print(&results, std::io::stdout().is_terminal());
    let kept = results.iter().filter(|result| result.kept).count();
    println!(
        "\n{kept} of {} outcomes are what the policy promises.",
        results.len()
    );
    println!(
        "Deferred means that no session was begun, or that it ended before MAIL FROM; the message stays in the queue and is retried."
    );
    if keep {
        print_peers(&stage);
        tokio::signal::ctrl_c().await?;
        println!("\nStopping.");
    }
    stage.stop().await?;
    Ok(kept == results.len())
}

/// Prints the addresses of relay and peers, and a command to try.
fn print_peers(stage: &DemoStage) {
    println!(
        "\nThe relay is at {}, its configuration in {}.",
        stage.relay,
        stage.config_file.display()
    );
    println!("Its peers:");
    println!(
        "  {}  our.example, the mailbox server, without TLS",
        stage.mailboxes.address
    );
    println!("  {}  domain-a.com, without TLS", stage.domain_a.address);
    println!("  {}  domain-b.com, with TLS", stage.domain_b.address);
    println!(
        "  {}  domain-c.com, with TLS that is stripped on the way",
        stage.interceptor_of_c.address
    );
    for (case, peer) in OUTGOING.iter().zip(&stage.peers) {
        println!("  {}  {}: {}", peer.address, case.domain, case.title);
    }
    for (case, peer) in PUBLISHERS.iter().zip(&stage.publishers.peers) {
        println!("  {}  {}: {}", peer.address, case.domain, case.title);
    }
    for ((domain, downgrade, _), (_, interceptor)) in
        DOWNGRADED.iter().zip(&stage.publishers.downgraded)
    {
        println!(
            "  {}  {domain}, with TLS that was stripped on the way (downgrade {downgrade})",
            interceptor.address
        );
    }
    println!("  {}  their DNS", stage.publishers.names);
    println!(
        "  127.0.0.1:{}  their MTA-STS policies",
        stage.publishers.policies.port
    );
    println!("Try:");
    println!(
        "  swaks --server {} --tls --from alice@our.example --to bob@domain-a.com,bob@domain-b.com",
        stage.relay
    );
    println!("Ctrl-C ends everything.");
}
