//! The demo of several relays: a PostgreSQL server and three Gateposts as processes of their own, which
//! share a queue. One of them is killed, and the others deliver its mail.
//!
//! `programs` finds the server's programs, `database` runs the server, `node` a relay, both as a
//! `child`; `stage` sets all of it up, `story` plays, and `arrivals` counts what the partner received.

mod arrivals;
mod child;
mod database;
mod error;
mod node;
mod programs;
mod stage;
mod story;

use std::time::Instant;

use tokio::signal::unix::{SignalKind, signal};

pub use error::ClusterDemoError;

use stage::ClusterStage;

/// Plays the death of a relay, and prints what becomes of its mail. What was started is stopped in any
/// case, also on Ctrl-C.
///
/// Returns true if each message arrived exactly once, and all under TLS.
///
/// # Errors
/// [`ClusterDemoError`] if the demo could not be completed.
pub async fn play_cluster() -> Result<bool, ClusterDemoError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        played = play() => played,
        interrupted = tokio::signal::ctrl_c() => Err(interrupted.err().map_or(ClusterDemoError::Interrupted, Into::into)),
        _ = terminate.recv() => Err(ClusterDemoError::Interrupted),
        _ = hang_up.recv() => Err(ClusterDemoError::Interrupted),
    }
}

async fn play() -> Result<bool, ClusterDemoError> {
    let began = Instant::now();
    println!(
        "Gatepost {}: starting PostgreSQL and the relays …",
        env!("CARGO_PKG_VERSION")
    );
    let mut stage = ClusterStage::start().await?;
    let is_kept = story::play(&mut stage, began).await?;
    stage.stop().await?;
    println!("         Relays and database are stopped.");
    Ok(is_kept)
}
