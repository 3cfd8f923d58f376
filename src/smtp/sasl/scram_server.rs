//! The server side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802 §5, §6; RFC 7677; RFC 9266).

use super::login::LoginFault;
use super::prepare_name;
use super::scram::{ScramKey, ScramVerifier};
use super::scram_message::{
    BindingFlag, ClientFinal, ClientFirst, ServerFirst, TLS_EXPORTER, auth_message,
    octets_attribute,
};

/// The channel bindings of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Binding {
    /// True if SCRAM-SHA-256-PLUS was offered.
    pub(super) is_offered: bool,
    /// True if the client chose SCRAM-SHA-256-PLUS.
    pub(super) is_chosen: bool,
}

/// An exchange after the client's first message.
#[derive(Debug)]
pub(super) struct ScramServer {
    first: ClientFirst,
    /// The user name in the form in which it is compared.
    pub(super) name: String,
    challenge: Option<ScramChallenge>,
}

/// The server's first message, and what it needs to check the answer.
#[derive(Debug)]
struct ScramChallenge {
    sent: ServerFirst,
    verifier: ScramVerifier,
    is_genuine: bool,
    /// The value that `c=` must have.
    binding_input: String,
}

impl ScramServer {
    /// Reads the client's first message.
    ///
    /// # Errors
    /// The fault; where the message is well formed, with the name that it gives.
    // Rule: RFC 5802 §5.1, §6.
    pub(super) fn begin(
        message: &[u8],
        binding: Binding,
    ) -> Result<Self, (LoginFault, Option<String>)> {
        let malformed = (LoginFault::Malformed, None);
        let text = std::str::from_utf8(message).map_err(|_| malformed.clone())?;
        let first = ClientFirst::parse(text).ok_or_else(|| malformed.clone())?;
        let name = prepare_name(&first.name).map_err(|_| malformed)?;
        let failed = |fault| Err((fault, Some(name.clone())));
        match (&first.binding, binding.is_chosen) {
            (BindingFlag::Bound(kind), true) if kind == TLS_EXPORTER => {}
            (BindingFlag::Bound(_), _) | (_, true) => return failed(LoginFault::ChannelBinding),
            // The client would have chosen the bound mechanism, had it seen the offer: somebody has
            // removed it.
            (BindingFlag::NotOffered, false) if binding.is_offered => {
                return failed(LoginFault::Downgrade);
            }
            (BindingFlag::NotOffered | BindingFlag::Unsupported, false) => {}
        }
        let acting = first.acting.as_deref().map(prepare_name);
        if acting.is_some_and(|acting| acting.as_ref() != Ok(&name)) {
            return failed(LoginFault::OtherIdentity);
        }
        Ok(Self {
            first,
            name,
            challenge: None,
        })
    }

    /// Returns the server's first message. `nonce` is our part of the nonce; `binding` the data of
    /// the connection; `is_genuine` is false for a verifier that stands in for a user that does not
    /// exist.
    pub(super) fn challenge(
        &mut self,
        (verifier, is_genuine): (ScramVerifier, bool),
        nonce: &str,
        binding: &[u8],
    ) -> String {
        let sent = ServerFirst {
            nonce: format!("{}{nonce}", self.first.nonce),
            salt: verifier.salt.clone(),
            iterations: verifier.iterations,
        };
        let text = sent.text();
        self.challenge = Some(ScramChallenge {
            sent,
            verifier,
            is_genuine,
            binding_input: self.first.binding_input(binding),
        });
        text
    }

    /// Checks the client's last message, and returns the server's.
    // Rule: RFC 5802 §3, §5.1, §6.
    pub(super) fn check(&self, message: &[u8]) -> Result<String, LoginFault> {
        let text = std::str::from_utf8(message).map_err(|_| LoginFault::Malformed)?;
        let last = ClientFinal::parse(text).ok_or(LoginFault::Malformed)?;
        let challenge = self.challenge.as_ref().ok_or(LoginFault::Malformed)?;
        let auth = auth_message(&self.first, &challenge.sent.text(), &last.without_proof);
        // Each check is made, so that the time says nothing.
        let is_proved = challenge.verifier.accepts(&last.proof, &auth);
        if last.nonce != challenge.sent.nonce {
            return Err(LoginFault::Nonce);
        }
        if last.binding != challenge.binding_input {
            return Err(LoginFault::ChannelBinding);
        }
        if !is_proved || !challenge.is_genuine {
            return Err(LoginFault::Credentials);
        }
        let signature: ScramKey = challenge.verifier.server_signature(&auth);
        Ok(octets_attribute('v', &signature))
    }
}
