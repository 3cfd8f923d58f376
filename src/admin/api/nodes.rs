//! The JSON of `/v1/nodes`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An element of `GET /v1/nodes`: a relay that shares the spool. The order is by name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeDetails {
    /// The name (`[cluster] node`).
    pub name: String,
    /// The number, which is part of the queue ids that it draws.
    pub number: i16,
    /// True for the relay that answers.
    pub own: bool,
    /// True while its lease holds, by the clock of the database.
    pub alive: bool,
    /// The end of its lease, by that clock.
    pub lease_end: Timestamp,
    /// True while it hands what waits to the others.
    pub draining: bool,
    /// The number of messages that are its own, or were its own last.
    pub messages: u64,
    /// The comparison of its configuration with that of the relay that answers.
    pub config: ConfigComparison,
    /// The connectors that differ, by name. Mail that goes by them is not taken over.
    pub differing: Vec<String>,
}

/// The comparison of two configurations, in what decides how mail is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfigComparison {
    /// Mail is sent alike.
    Same,
    /// Some mail is not sent alike.
    Differs,
    /// One of the two is not known.
    Unknown,
}

/// `POST /v1/nodes/remove`: removes a node that is dead. The response is a [`NodeRemovalResponse`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeRemovalRequest {
    /// The name of the node.
    pub name: String,
    /// True if the other nodes shall have its messages, by their own rules.
    #[serde(default)]
    pub hand_over: bool,
}

/// `POST /v1/nodes/drain`: has a node hand its messages to the others, or ends that. The response is a
/// [`NodeDrainResponse`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeDrainRequest {
    /// The name of the node; `null` for the relay that answers.
    #[serde(default)]
    pub name: Option<String>,
    /// True to end the drain.
    #[serde(default)]
    pub end: bool,
}

/// The response to [`NodeDrainRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeDrainResponse {
    /// The name of the node.
    pub name: String,
    /// The number of messages that were its own then.
    pub messages: u64,
}

/// The response to [`NodeRemovalRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeRemovalResponse {
    /// The number of messages that were handed over.
    pub messages: u64,
}
