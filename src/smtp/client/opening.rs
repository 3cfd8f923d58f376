//! From the greeting to a session on which mail could be spoken of: EHLO, STARTTLS, EHLO again.

use crate::address::Domain;
use crate::smtp::reply::{Reply, ReplyParser, Severity};

use super::{DialogueStage, Extensions, ProtocolViolation};

/// Whether STARTTLS is to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StarttlsUse {
    /// Where the peer offers it.
    IfOffered,
    /// Not even tried.
    Never,
}

/// What the pump is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpeningStep {
    /// The peer agreed to STARTTLS: shake hands, then call [`Opening::secured`].
    Handshake,
    /// The session is open, in clear, and this is why.
    InClear(NoStarttls),
    /// The session is open, under TLS.
    Secured,
    /// The peer does not want to speak to us.
    Failed {
        /// What it answered.
        stage: DialogueStage,
        /// With what.
        reply: Reply,
    },
}

/// Why a session is in clear, as far as the dialogue knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoStarttls {
    /// STARTTLS was not to be used.
    NotWanted,
    /// The peer does not offer it.
    NotOffered,
    /// The peer refused it. The session can go on, unless the reply is a 421.
    Rejected(Reply),
    /// The peer said something in clear behind its 220 (RFC 3207 §6). The session is spoilt: whoever
    /// put that there could put more.
    SpokeBeforeHandshake,
}

/// The opening of one connection.
#[derive(Debug)]
pub struct Opening<'a> {
    hostname: &'a Domain,
    starttls: StarttlsUse,
    awaited: DialogueStage,
    under_tls: bool,
    extensions: Extensions,
    parser: ReplyParser,
    replies: usize,
    is_ourselves: bool,
}

impl<'a> Opening<'a> {
    /// Starts with a fresh connection: the peer speaks first. `hostname` is our own name.
    #[must_use]
    pub fn new(hostname: &'a Domain, starttls: StarttlsUse) -> Self {
        Self {
            hostname,
            starttls,
            awaited: DialogueStage::Greeting,
            under_tls: false,
            extensions: Extensions::default(),
            parser: ReplyParser::default(),
            replies: 0,
            is_ourselves: false,
        }
    }

    /// What the peer can do. Before the session is open, and from a 220 to STARTTLS until EHLO was
    /// answered under TLS, nothing is known (RFC 3207 §4.2).
    #[must_use]
    pub fn extensions(&self) -> Extensions {
        self.extensions
    }

    /// What is awaited an answer to.
    #[must_use]
    pub fn awaited(&self) -> DialogueStage {
        self.awaited
    }

    /// Whether the peer greeted us with our own name: what we sent there would come back.
    #[must_use]
    pub fn is_ourselves(&self) -> bool {
        self.is_ourselves
    }

    /// How many whole replies have come.
    #[must_use]
    pub fn replies(&self) -> usize {
        self.replies
    }

    /// The handshake is complete: everything said before it is forgotten, and EHLO is said again.
    pub fn secured(&mut self, out: &mut Vec<u8>) {
        self.under_tls = true;
        self.parser = ReplyParser::default();
        self.hello(DialogueStage::Ehlo, out);
    }

    /// Takes the peer's bytes and says how many were used; `None` wants more of them, after `out` has
    /// been sent.
    ///
    /// # Errors
    /// [`ProtocolViolation`].
    pub fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<OpeningStep>), ProtocolViolation> {
        let (used, reply) = self.parser.parse(input)?;
        let Some(reply) = reply else { return Ok((used, None)) };
        self.replies += 1;
        let stage = self.awaited;
        let step = self.reply(reply, out);
        if used == input.len() {
            return Ok((used, step));
        }
        match step {
            Some(OpeningStep::Handshake) => {
                Ok((input.len(), Some(OpeningStep::InClear(NoStarttls::SpokeBeforeHandshake))))
            }
            // Whatever else it says: it is over.
            Some(OpeningStep::Failed { .. }) => Ok((used, step)),
            _ => Err(ProtocolViolation::OutOfTurn(stage)),
        }
    }

    fn reply(&mut self, reply: Reply, out: &mut Vec<u8>) -> Option<OpeningStep> {
        let stage = self.awaited;
        match (stage, reply.severity()) {
            (DialogueStage::Greeting, Severity::Success) => {
                // RFC 5321 §4.2: the greeting begins with the server's name.
                let name = reply.lines().first().and_then(|line| line.split_whitespace().next());
                self.is_ourselves = name.is_some_and(|name| name.eq_ignore_ascii_case(self.hostname.as_str()));
                self.hello(DialogueStage::Ehlo, out);
                None
            }
            (DialogueStage::Ehlo, Severity::Success) => {
                let offered = Extensions::of(&reply);
                self.extensions = if self.under_tls { offered } else { offered.in_clear() };
                self.greeted(out)
            }
            // RFC 5321 §3.2: a server that does not know EHLO may know HELO.
            (DialogueStage::Ehlo, Severity::Permanent) => {
                self.hello(DialogueStage::Helo, out);
                None
            }
            (DialogueStage::Helo, Severity::Success) => self.greeted(out),
            (DialogueStage::StartTls, Severity::Success) => {
                self.extensions = Extensions::default();
                Some(OpeningStep::Handshake)
            }
            (DialogueStage::StartTls, _) => Some(OpeningStep::InClear(NoStarttls::Rejected(reply.brief()))),
            _ => Some(OpeningStep::Failed { stage, reply }),
        }
    }

    /// EHLO or HELO was accepted.
    fn greeted(&mut self, out: &mut Vec<u8>) -> Option<OpeningStep> {
        if self.under_tls {
            return Some(OpeningStep::Secured);
        }
        match self.starttls {
            StarttlsUse::Never => Some(OpeningStep::InClear(NoStarttls::NotWanted)),
            StarttlsUse::IfOffered if !self.extensions.starttls => Some(OpeningStep::InClear(NoStarttls::NotOffered)),
            StarttlsUse::IfOffered => {
                self.awaited = DialogueStage::StartTls;
                out.extend_from_slice(b"STARTTLS\r\n");
                None
            }
        }
    }

    fn hello(&mut self, stage: DialogueStage, out: &mut Vec<u8>) {
        self.awaited = stage;
        self.extensions = Extensions::default();
        out.extend_from_slice(if stage == DialogueStage::Helo { b"HELO " } else { b"EHLO " });
        out.extend_from_slice(self.hostname.as_str().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}
