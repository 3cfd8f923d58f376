//! The second try of a TLS handshake, with another `ClientHello`, if the peer cut the first one
//! short.
//!
//! It comes before a fallback to the clear and before a refusal, on a fresh connection to the same
//! address. [`Hellos`] chooses the `ClientHello` within the policy; the session is judged like a
//! first one.

use crate::net::tls_io::HandshakeError;
use crate::policy::failure::{Failure, HopAddress};
use crate::policy::tls::{Hello, Hellos, NoTls};
use crate::smtp::client::StarttlsUse;

use super::dial_record::DialRecord;
use super::observe::FirstTry;
use super::session::{DialOutcome, HandshakeOutcome, OpenedSession};
use super::target::Target;

impl Target<'_> {
    /// Tries TLS again with another `ClientHello`, on a fresh connection to the same address, after
    /// the peer cut the first handshake short.
    pub(super) async fn try_again(
        &self,
        address: &HopAddress,
        hellos: &Hellos,
        hello: Hello,
        fault: &HandshakeError,
        record: &mut DialRecord,
    ) -> Result<DialOutcome, Failure> {
        record.steps.first_try = Some(FirstTry {
            fault: fault.to_string(),
            second: hello,
        });
        let describe =
            |again: String| NoTls::Broken(format!("{fault}; again, with {hello}: {again}"));
        let mut opening = self.opening(StarttlsUse::IfOffered);
        let again = match self.open(address, &mut opening, record).await {
            Ok(OpenedSession::Handshake(wire)) => {
                match self.handshake(wire, opening, hellos, hello, record).await? {
                    HandshakeOutcome::Judged(outcome) => return Ok(*outcome),
                    HandshakeOutcome::Broken(again) => again.to_string(),
                }
            }
            Ok(OpenedSession::Closed(reason)) => reason.to_string(),
            Ok(OpenedSession::Clear { wire, reason, .. }) => {
                // A connection in the clear may follow; the two must not be open at the same time.
                let _ = wire.quit().await;
                reason.to_string()
            }
            // An unmet demand explains more than a host that no longer answers.
            Err(failure) => match self.judge_closed(describe(failure.to_string()), record) {
                refused @ DialOutcome::Refused(_) => return Ok(refused),
                DialOutcome::Cleared { .. } | DialOutcome::Redial(_) => return Err(failure),
            },
        };
        Ok(self.judge_closed(describe(again), record))
    }
}
