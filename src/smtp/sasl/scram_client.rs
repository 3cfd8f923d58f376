//! The client side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802 §5, §6; RFC 7677; RFC 9266).

use std::num::NonZeroU32;

use super::prepared::Password;
use super::scram::{SaltedPassword, ScramKey};
use super::scram_message::{
    BindingFlag, ClientFinal, ClientFirst, ServerFirst, TLS_EXPORTER, auth_message,
    octets_attribute, parse_server_final,
};
use super::server_fault::{ServerFault, shortened};

/// The derivation of the keys of SCRAM from the password.
#[derive(Debug, Clone)]
pub struct KeyDerivation {
    password: Password,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

impl KeyDerivation {
    /// Derives the keys. Blocks.
    #[must_use]
    pub fn run(&self) -> SaltedPassword {
        SaltedPassword::derive(&self.password, &self.salt, self.iterations)
    }
}

/// An exchange after our first message.
#[derive(Debug)]
pub(super) struct ScramLogin {
    password: Password,
    first: ClientFirst,
    /// The value of `c=`.
    binding_input: String,
    /// The server's first message as it was sent, and the nonce in it.
    server_first: Option<(String, String)>,
    /// The signature by which the server proves that it knows the password.
    expected: Option<ScramKey>,
}

impl ScramLogin {
    /// Begins the exchange and returns our first message. `binds` selects the mechanism with a
    /// channel binding, and `binding` is that of the connection.
    // Rule: RFC 5802 §6; RFC 9266 §4.2.
    pub(super) fn begin(
        user: &str,
        password: &Password,
        (binds, binding): (bool, Option<&[u8]>),
        nonce: &str,
    ) -> (Self, String) {
        let flag = match (binds, binding) {
            (true, _) => BindingFlag::Bound(TLS_EXPORTER.to_owned()),
            // We would have bound the exchange, had the server offered that. If it did, somebody has
            // removed the offer, and the server ends the exchange.
            (false, Some(_)) => BindingFlag::NotOffered,
            (false, None) => BindingFlag::Unsupported,
        };
        let first = ClientFirst::new(flag, user, nonce);
        let text = first.text();
        let scram = Self {
            password: password.clone(),
            binding_input: first.binding_input(binding.unwrap_or_default()),
            first,
            server_first: None,
            expected: None,
        };
        (scram, text)
    }

    /// Returns true if our proof is made, so that the server's is awaited.
    pub(super) fn is_proved(&self) -> bool {
        self.expected.is_some()
    }

    /// Takes the server's first message.
    pub(super) fn accept_first(&mut self, message: &str) -> Result<KeyDerivation, ServerFault> {
        if message.starts_with("e=") {
            return Err(ServerFault::Refusal(shortened(message)));
        }
        let parsed = ServerFirst::parse(message, &self.first).ok_or(ServerFault::FirstMessage)?;
        self.server_first = Some((message.to_owned(), parsed.nonce));
        Ok(KeyDerivation {
            password: self.password.clone(),
            salt: parsed.salt,
            iterations: parsed.iterations,
        })
    }

    /// Makes our last message.
    // Rule: RFC 5802 §3, §5.1.
    pub(super) fn prove(&mut self, keys: &SaltedPassword) -> String {
        let (server_first, nonce) = self.server_first.clone().unwrap_or_default();
        let without_proof = ClientFinal::without_proof(&self.binding_input, &nonce);
        let auth = auth_message(&self.first, &server_first, &without_proof);
        self.expected = Some(keys.server_signature(&auth));
        let proof = octets_attribute('p', &keys.client_proof(&auth));
        format!("{without_proof},{proof}")
    }

    /// Checks the server's last message.
    // Rule: RFC 5802 §5.1.
    pub(super) fn verify(&self, message: &str) -> Result<(), ServerFault> {
        if message.starts_with("e=") {
            return Err(ServerFault::Refusal(shortened(message)));
        }
        let signature = parse_server_final(message).ok_or(ServerFault::Signature)?;
        match &self.expected {
            Some(expected) if expected.equals(signature.as_bytes()) => Ok(()),
            Some(_) | None => Err(ServerFault::Signature),
        }
    }
}
