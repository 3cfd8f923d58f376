//! The errors of the demo.

use super::zones::ZoneError;
use crate::config::Fault;
use crate::daemon::{RunError, StartError};

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
    Zones(#[from] ZoneError),
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
