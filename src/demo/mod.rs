//! The demo: a relay and its peers in one process, and every scenario of opportunistic, forced, published and
//! remembered TLS played through them over TCP. Loopback and a temporary folder are all it touches.
//!
//! The relay is the real one, started from a real configuration file. What is shown was seen by the
//! peers and recorded by the relay; nothing is taken from what the demo meant to happen.

mod authority;
mod configuration;
mod ledger;
mod peer;
pub mod policies;
mod published;
mod scenarios;
mod stage;
mod table;
pub mod zones;

use std::io::IsTerminal as _;

use crate::config::Fault;
use crate::daemon::{RunError, StartError};

use stage::Stage;

/// Why the demo could not be played to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The network or the temporary folder.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A certificate could not be made.
    #[error("a certificate could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS could not be set up.
    #[error("TLS could not be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The zones could not be made.
    #[error("the demo's DNS zones could not be made: {0}")]
    Zones(#[from] zones::ZoneError),
    /// The demo's own configuration is refused: a fault of Gatepost.
    #[error("the demo's configuration is refused: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Faults(Vec<Fault>),
    /// The relay did not start.
    #[error("the relay did not start: {0}")]
    Start(#[from] StartError),
    /// The relay ended by itself.
    #[error("the relay ended by itself: {0}")]
    End(#[from] RunError),
    /// The relay has no listener.
    #[error("the relay listens nowhere")]
    NoListener,
    /// The relay did nothing with a message in time.
    #[error("the relay did nothing about the message to {0} in time")]
    Silence(String),
}

/// Plays everything and prints the table. With `keep`, relay and peers then stay until Ctrl-C.
///
/// Returns whether every outcome was the one that its policy promises.
///
/// # Errors
/// [`DemoError`] where the play broke off.
pub async fn play(keep: bool) -> Result<bool, DemoError> {
    let stage = Stage::set().await?;
    println!("Gatepost {}: one relay on {}, and its peers. Playing …", env!("CARGO_PKG_VERSION"), stage.relay);
    let mut rows = scenarios::play_outgoing(&stage).await?;
    rows.extend(scenarios::play_incoming(&stage).await?);
    rows.extend(scenarios::play_mixture(&stage).await?);
    rows.extend(published::play_publishers(&stage).await?);
    rows.extend(published::play_losers(&stage).await?);
    table::print(&rows, std::io::stdout().is_terminal());
    let kept = rows.iter().filter(|row| row.kept).count();
    println!("\n{kept} of {} outcomes are what the policy promises.", rows.len());
    println!(
        "Refused means: no session was begun, or it ended before a word of the envelope was said; the message waits in the queue."
    );
    if keep {
        invite(&stage);
        tokio::signal::ctrl_c().await?;
        println!("\nStopping.");
    }
    stage.strike().await?;
    Ok(kept == rows.len())
}

fn invite(stage: &Stage) {
    println!("\nThe relay is at {}, its configuration in {}.", stage.relay, stage.config_file.display());
    println!("Its peers:");
    println!("  {}  our.example, the mailbox server, in clear", stage.mailboxes.address);
    println!("  {}  domain-a.com, in clear", stage.domain_a.address);
    println!("  {}  domain-b.com, with TLS", stage.domain_b.address);
    println!("  {}  domain-c.com, with TLS that is stripped on the way", stage.on_the_way_to_c.address);
    for (case, peer) in scenarios::OUTGOING.iter().zip(&stage.peers) {
        println!("  {}  {}: {}", peer.address, case.domain, case.title);
    }
    for (case, peer) in published::PUBLISHERS.iter().zip(&stage.publishers.peers) {
        println!("  {}  {}: {}", peer.address, case.domain, case.title);
    }
    for ((domain, downgrade, _), (_, on_the_way)) in published::LOSERS.iter().zip(&stage.publishers.losers) {
        println!("  {}  {domain}, with TLS that was stripped on the way (downgrade {downgrade})", on_the_way.address);
    }
    println!("  {}  their DNS", stage.publishers.names);
    println!("  127.0.0.1:{}  their MTA-STS policies", stage.publishers.policies.port);
    println!("Try:");
    println!("  swaks --server {} --tls --from alice@our.example --to bob@domain-a.com,bob@domain-b.com", stage.relay);
    println!("Ctrl-C ends everything.");
}

/// A cipher suite's name without what every name has.
fn short_cipher(name: &str) -> String {
    name.trim_start_matches("TLS13_").trim_start_matches("TLS_").to_owned()
}
