//! The demo: a relay and its peers in one process, which play every scenario of opportunistic,
//! forced, published and remembered TLS over TCP. It uses only loopback and a temporary folder.
//!
//! The relay is the real one, started from a real configuration file. The results in the table are
//! what the peers received and what the relay recorded, compared with what each policy promises.

mod attempts;
mod authority;
mod configuration;
mod peer;
pub mod policy_host;
mod published;
mod scenarios;
mod stage;
mod table;
pub mod zones;

use std::io::IsTerminal as _;

use crate::config::Fault;
use crate::daemon::{RunError, StartError};

use stage::DemoStage;

/// The reason why the demo could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The network or the temporary folder reports an error.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A certificate cannot be created.
    #[error("cannot create a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS cannot be configured.
    #[error("cannot configure TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The DNS zones cannot be created.
    #[error("cannot create the demo's DNS zones: {0}")]
    Zones(#[from] zones::ZoneError),
    /// The demo's own configuration has errors, which is a bug in Gatepost.
    #[error("the demo's configuration has errors: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Faults(Vec<Fault>),
    /// The relay did not start.
    #[error("the relay did not start: {0}")]
    Start(#[from] StartError),
    /// The relay failed.
    #[error("the relay failed: {0}")]
    Relay(#[from] RunError),
    /// The relay has no listener.
    #[error("the relay has no listener")]
    NoListener,
    /// The relay made no delivery attempt within the time limit.
    #[error("the relay made no delivery attempt to {0} in time")]
    NoAttempt(String),
}

/// Plays all scenarios and prints the table. With `keep`, relay and peers then run until Ctrl-C.
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
    let mut rows = scenarios::play_outgoing(&stage).await?;
    rows.extend(scenarios::play_incoming(&stage).await?);
    rows.extend(scenarios::play_mixture(&stage).await?);
    rows.extend(published::play_publishers(&stage).await?);
    rows.extend(published::play_downgraded(&stage).await?);
    table::print(&rows, std::io::stdout().is_terminal());
    let kept = rows.iter().filter(|row| row.kept).count();
    println!(
        "\n{kept} of {} outcomes are what the policy promises.",
        rows.len()
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
    Ok(kept == rows.len())
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
    for (case, peer) in scenarios::OUTGOING.iter().zip(&stage.peers) {
        println!("  {}  {}: {}", peer.address, case.domain, case.title);
    }
    for (case, peer) in published::PUBLISHERS.iter().zip(&stage.publishers.peers) {
        println!("  {}  {}: {}", peer.address, case.domain, case.title);
    }
    for ((domain, downgrade, _), (_, interceptor)) in published::DOWNGRADED
        .iter()
        .zip(&stage.publishers.downgraded)
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

/// Returns the name of a cipher suite without its prefix.
fn short_cipher(name: &str) -> String {
    name.trim_start_matches("TLS13_")
        .trim_start_matches("TLS_")
        .to_owned()
}
