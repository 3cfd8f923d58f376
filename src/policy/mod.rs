//! The rules, as pure decisions: the TLS judge, the connectors, the failure judge, and access to
//! the relay.

pub mod connector;
pub mod failure;
pub mod layers;
pub mod location;
pub mod networks;
pub mod relay_access;
pub mod tls;
