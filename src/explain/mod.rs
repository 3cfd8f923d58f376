//! Explanations of how mail would be treated: which connector applies and why, which layer demands
//! what, which hops an attempt would use, and what the result would be for each kind of peer.
//!
//! This module decides nothing. It asks the same functions that deliveries and sessions use, and
//! puts their answers together. It sends only DNS queries, fetches an MTA-STS policy if the running
//! daemon has none, and reads no file of the running daemon but the lists of recipients.

pub mod difference;
pub mod document;
mod explainer;
mod inbound;
mod layers;
mod outbound;
mod recipients;
mod sources;
mod subject;

pub use explainer::Explainer;
pub use recipients::recipient_note;
pub use sources::{DaemonPolicies, RememberedTls, Sources, policy_domains};
pub use subject::{Subject, SubjectError};
