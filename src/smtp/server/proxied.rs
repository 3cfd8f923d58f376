//! XCLIENT (Postfix): a proxy passes on the session of its own client.

use super::{ClientHelo, InputMode, Server, ServerStep, replies};
use crate::smtp::command::{Attribute, CommandError, XClient};
use crate::smtp::reply::Reply;

/// The rights of the client that a proxy names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XClientRights {
    /// See [`super::Profile::completed`].
    pub completed: bool,
    /// See [`super::Profile::xclient`].
    pub xclient: bool,
}

impl Server {
    // Rule: RFC 5321 §4.1.5.
    pub(super) fn xclient_command<'a>(&mut self, attributes: Box<XClient>) -> ServerStep<'a> {
        if self.transaction.is_some() {
            return self.reply(replies::out_of_order(
                "XCLIENT may not come within a transaction; RSET ends it",
            ));
        }
        if !self.profile.xclient {
            return self.reply(replies::xclient_denied());
        }
        ServerStep::XClient(attributes)
    }

    /// Closes the session for a fault after which the input can no longer be read as commands.
    pub(super) fn close_with_fault<'a>(&mut self, fault: &CommandError) -> ServerStep<'a> {
        self.mode = InputMode::Closed;
        match fault {
            CommandError::ProxyHeader => ServerStep::ProxyHeader(fault.reply()),
            fault => ServerStep::Close(fault.reply()),
        }
    }

    /// Answers [`ServerStep::XClient`]: the session starts over for the client that the proxy
    /// names. HELO and PROTO replace its EHLO or HELO. Returns the greeting.
    pub fn apply_xclient(&mut self, attributes: XClient, rights: XClientRights) -> Reply {
        self.profile.completed = rights.completed;
        self.profile.xclient = rights.xclient;
        self.transaction = None;
        self.mode = InputMode::Command;
        self.forget_login();
        // The TLS session is the proxy's, so its channel binding is not that of the client.
        self.without_channel_binding();
        self.helo = match attributes.hello {
            Attribute::Is(name) => Some(ClientHelo {
                name,
                esmtp: attributes.esmtp == Attribute::Is(true),
            }),
            Attribute::Absent | Attribute::Unavailable => None,
        };
        replies::greeting(&self.profile.hostname)
    }
}
