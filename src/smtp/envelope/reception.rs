//! The session in which a message was received, in short, for operators.

use serde::{Deserialize, Serialize};

/// The session in which a message was received, in short. It stays with the message to its end. The
/// fields have the names and values of those of the evidence.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reception {
    /// The name of the protocol, as in the Received field (RFC 3848), such as `ESMTPSA`; `None` if
    /// an earlier version received the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The client's address and port; `None` if the load balancer or proxy in front does not know
    /// them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The client's name in DNS, as a proxy reported it (XCLIENT).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_name: Option<String>,
    /// The proxy that reported the client, or the load balancer that did not know the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// The name in the client's EHLO or HELO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hello: Option<String>,
    /// The user as which the client has logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The name of the listener.
    pub listener: String,
}
