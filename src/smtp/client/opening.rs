//! The opening of a session: greeting, EHLO, STARTTLS and EHLO again.

use crate::smtp::address::Domain;
use crate::smtp::reply::{Reply, ReplyParser, Severity};

use super::{DialogueStage, Extensions, ProtocolViolation};

/// The use of STARTTLS.
// Rule: policy table (STARTTLS rejected, broken handshake, octets before the handshake).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StarttlsUse {
    /// If the peer offers it.
    IfOffered,
    /// Not at all.
    Never,
    /// The connection has TLS from the first octet (RFC 8314 §3.3), so that it is not needed.
    Implicit,
}

/// The next thing that the driver of the dialogue must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpeningStep {
    /// The peer agreed to STARTTLS. Start the handshake, then call [`Opening::continue_under_tls`].
    Handshake,
    /// The session is open in the clear, for this reason.
    InClear(NoStarttls),
    /// The session is open under TLS.
    Secured,
    /// The peer rejected the session.
    Failed {
        /// The stage at which it did.
        stage: DialogueStage,
        /// Its reply.
        reply: Reply,
    },
}

/// The reasons why a session is in the clear, as far as the dialogue shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoStarttls {
    /// STARTTLS was not to be used.
    NotWanted,
    /// The peer does not offer STARTTLS.
    NotOffered,
    /// The peer rejected STARTTLS. The session can continue, unless the reply is a 421.
    Rejected(Reply),
    /// Octets in the clear came after the peer's 220 to STARTTLS (RFC 3207 §6). The session cannot
    /// be used: an attacker who injected them could inject more.
    SpokeBeforeHandshake,
}

/// The state machine that opens one connection.
#[derive(Debug)]
pub struct Opening<'a> {
    /// The name that this relay says in EHLO.
    hostname: &'a Domain,
    /// The names of this relay.
    own_names: [&'a Domain; 2],
    starttls: StarttlsUse,
    /// The command that greets the peer.
    hello: DialogueStage,
    awaited: DialogueStage,
    under_tls: bool,
    extensions: Extensions,
    parser: ReplyParser,
    replies: usize,
    is_ourselves: bool,
}

impl<'a> Opening<'a> {
    /// Starts on a new connection. `hostname` is the name of this host.
    #[must_use]
    pub fn new(hostname: &'a Domain, starttls: StarttlsUse) -> Self {
        Self {
            hostname,
            own_names: [hostname; 2],
            starttls,
            hello: DialogueStage::Ehlo,
            awaited: DialogueStage::Greeting,
            under_tls: false,
            extensions: Extensions::default(),
            parser: ReplyParser::default(),
            replies: 0,
            is_ourselves: false,
        }
    }

    /// Says this name in EHLO, in place of the host name.
    #[must_use]
    pub fn with_name(self, name: &'a Domain) -> Self {
        Self {
            hostname: name,
            own_names: [self.hostname, name],
            ..self
        }
    }

    /// Speaks LMTP.
    // Rule: RFC 2033 §4.1.
    #[must_use]
    pub fn with_lmtp(self) -> Self {
        Self {
            hello: DialogueStage::Lhlo,
            ..self
        }
    }

    /// Returns the peer's extensions. None are known before the session is open, and from the 220
    /// to STARTTLS until the answer to EHLO under TLS (RFC 3207 §4.2).
    #[must_use]
    pub fn extensions(&self) -> Extensions {
        self.extensions
    }

    /// Returns the stage whose reply is awaited.
    #[must_use]
    pub fn awaited(&self) -> DialogueStage {
        self.awaited
    }

    /// Returns true if the peer's greeting has the name of this host: mail sent to it would come
    /// back.
    #[must_use]
    pub fn is_ourselves(&self) -> bool {
        self.is_ourselves
    }

    /// Returns the number of complete replies so far.
    #[must_use]
    pub fn replies(&self) -> usize {
        self.replies
    }

    /// Continues after the handshake: forgets everything from before it and sends EHLO again. If the
    /// connection has TLS from the first octet, the greeting is awaited.
    // Rule: RFC 3207 §4.2.
    pub fn continue_under_tls(&mut self, out: &mut Vec<u8>) {
        self.under_tls = true;
        self.parser = ReplyParser::default();
        if self.starttls != StarttlsUse::Implicit {
            self.send_hello(self.hello, out);
        }
    }

    /// Takes the peer's bytes and returns the number used. If the step is `None`, send `out` and
    /// call again with more bytes.
    ///
    /// # Errors
    /// [`ProtocolViolation`].
    pub fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<OpeningStep>), ProtocolViolation> {
        let (used, reply) = self.parser.parse(input)?;
        let Some(reply) = reply else {
            return Ok((used, None));
        };
        self.replies += 1;
        let stage = self.awaited;
        let step = self.process_reply(reply, out);
        if used == input.len() {
            return Ok((used, step));
        }
        match step {
            Some(OpeningStep::Handshake) => Ok((
                input.len(),
                Some(OpeningStep::InClear(NoStarttls::SpokeBeforeHandshake)),
            )),
            // The session has failed, so further octets do not matter.
            Some(OpeningStep::Failed { .. }) => Ok((used, step)),
            _ => Err(ProtocolViolation::OutOfTurn(stage)),
        }
    }

    // Rule: RFC 3207 §4.
    fn process_reply(&mut self, reply: Reply, out: &mut Vec<u8>) -> Option<OpeningStep> {
        let stage = self.awaited;
        match (stage, reply.severity()) {
            (DialogueStage::Greeting, Severity::Success) => {
                // RFC 5321 §4.2: the greeting begins with the server's name.
                let name = reply
                    .lines()
                    .first()
                    .and_then(|line| line.split_whitespace().next());
                let is_own = |own: &&Domain| {
                    name.is_some_and(|name| name.eq_ignore_ascii_case(own.as_str()))
                };
                self.is_ourselves = self.own_names.iter().any(is_own);
                self.send_hello(self.hello, out);
                None
            }
            (DialogueStage::Ehlo | DialogueStage::Lhlo, Severity::Success) => {
                let offered = Extensions {
                    lmtp: stage == DialogueStage::Lhlo,
                    ..Extensions::of(&reply)
                };
                self.extensions = if self.under_tls {
                    offered
                } else {
                    offered.in_clear()
                };
                self.after_hello(out)
            }
            // RFC 5321 §3.2: a server that does not know EHLO may know HELO.
            (DialogueStage::Ehlo, Severity::Permanent) => {
                self.send_hello(DialogueStage::Helo, out);
                None
            }
            (DialogueStage::Helo, Severity::Success) => self.after_hello(out),
            (DialogueStage::StartTls, Severity::Success) => {
                self.extensions = Extensions::default();
                Some(OpeningStep::Handshake)
            }
            (DialogueStage::StartTls, _) => Some(OpeningStep::InClear(NoStarttls::Rejected(
                reply.shortened(),
            ))),
            _ => Some(OpeningStep::Failed { stage, reply }),
        }
    }

    /// Continues after EHLO or HELO was accepted.
    fn after_hello(&mut self, out: &mut Vec<u8>) -> Option<OpeningStep> {
        if self.under_tls {
            return Some(OpeningStep::Secured);
        }
        match self.starttls {
            StarttlsUse::Never | StarttlsUse::Implicit => {
                Some(OpeningStep::InClear(NoStarttls::NotWanted))
            }
            StarttlsUse::IfOffered if !self.extensions.starttls => {
                Some(OpeningStep::InClear(NoStarttls::NotOffered))
            }
            StarttlsUse::IfOffered => {
                self.awaited = DialogueStage::StartTls;
                out.extend_from_slice(b"STARTTLS\r\n");
                None
            }
        }
    }

    // Rule: RFC 5321 §4.1.1.1.
    fn send_hello(&mut self, stage: DialogueStage, out: &mut Vec<u8>) {
        self.awaited = stage;
        self.extensions = Extensions::default();
        out.extend_from_slice(stage.name().as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.hostname.as_str().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}
