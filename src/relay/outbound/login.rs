//! Our login at a smart host: AUTH is written only on a session that proves who the host is.

use crate::net::tls_io::ChannelBinding;
use crate::policy::failure::{Failure, LoginProblem};
use crate::policy::tls::{Clearance, PeerProof};
use crate::relay::smart_host_logins::SmartHostLogin;
use crate::smtp::client::{
    DialogueStage, Extensions, LoginDialogue, LoginEnd, LoginStep, ProtocolViolation,
};
use crate::smtp::sasl::{ClientPassword, SaslClient};

use super::dial_record::DialRecord;
use super::login_result::{LoginAttempt, LoginVerdict, SessionLogin};
use super::target::Target;
use super::wire::{Dialogue, Wire};

/// The octets of a nonce of ours.
const NONCE_SIZE: usize = 24;

/// A login together with the proof of who the peer is. No other dialogue has AUTH.
struct ProvenLogin<'p> {
    _proof: &'p PeerProof,
    dialogue: LoginDialogue,
}

impl Dialogue for ProvenLogin<'_> {
    type Step = LoginStep;

    fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<LoginStep>), ProtocolViolation> {
        self.dialogue.receive(input, out)
    }

    fn replies(&self) -> usize {
        self.dialogue.replies()
    }

    fn awaited(&self) -> DialogueStage {
        self.dialogue.awaited()
    }
}

impl Target<'_> {
    /// Logs in if the connector says so. A session on which that fails is closed with QUIT.
    ///
    /// # Errors
    /// The [`Failure`] for which no mail may be sent on the session.
    // Rule: RFC 4954 §14.
    pub(super) async fn log_in(
        &self,
        wire: Wire,
        extensions: Extensions,
        clearance: &Clearance,
        record: &mut DialRecord,
    ) -> Result<(Wire, Option<SessionLogin>), Failure> {
        let Some(auth) = &self.connector.outbound.auth else {
            return Ok((wire, None));
        };
        let mut attempt = LoginAttempt {
            user: auth.user.as_str().into(),
            mechanism: None,
            verdict: LoginVerdict::Impossible,
        };
        let mut wire = wire;
        let result = match self.prepare_login(extensions, clearance, record) {
            Ok((proof, exchange)) => {
                attempt.mechanism = Some(exchange.0.mechanism().name());
                let end = self.converse_login(&mut wire, clearance, proof, exchange);
                end.await
            }
            Err(problem) => Err(Failure::login(problem)),
        };
        attempt.verdict = LoginVerdict::of(&result);
        let login = attempt.session_login();
        record.steps.login = Some(attempt);
        match (result, login) {
            (Ok(()), login) => Ok((wire, login)),
            (Err(failure), _) => {
                self.quit(wire).await;
                Err(failure.with_session(clearance.session()))
            }
        }
    }

    /// Chooses the mechanism, if a login is possible on this session at all.
    fn prepare_login<'p>(
        &self,
        extensions: Extensions,
        clearance: &'p Clearance,
        record: &DialRecord,
    ) -> Result<(&'p PeerProof, BegunExchange), LoginProblem> {
        let proof = clearance.peer_proof().ok_or(LoginProblem::Unproven)?;
        let login = self.snapshot.logins().get(self.connector);
        let password = login
            .map(SmartHostLogin::password)
            .and_then(Result::ok)
            .ok_or(LoginProblem::NoSecret)?;
        let offer = extensions.auth;
        if !offer.is_offered {
            return Err(LoginProblem::NotOffered);
        }
        let binding = record.seen.as_ref().and_then(|seen| seen.channel_binding());
        let mechanism = ClientPassword::choose(offer.passwords, binding.is_some())
            .ok_or(LoginProblem::NoMechanism)?;
        let binding = binding.map(ChannelBinding::as_bytes);
        let exchange = SaslClient::begin(mechanism, &password, binding, &nonce());
        Ok((proof, exchange))
    }

    async fn converse_login(
        &self,
        wire: &mut Wire,
        clearance: &Clearance,
        proof: &PeerProof,
        exchange: BegunExchange,
    ) -> Result<(), Failure> {
        let mechanism = exchange.0.mechanism().name();
        let mut login = ProvenLogin {
            _proof: proof,
            dialogue: LoginDialogue::start(exchange, wire.output(clearance)),
        };
        let end = loop {
            let step = wire.converse(&mut login, self.timeouts().reply).await;
            match step.map_err(|broken| broken.failure())? {
                LoginStep::Over(end) => break end,
                LoginStep::Derive(derivation) => {
                    // The server chooses the number of iterations.
                    let derived = tokio::task::spawn_blocking(move || derivation.run()).await;
                    // A task that is not aborted ends without a result only if it panics.
                    let keys = derived.map_err(|_| Failure::login(LoginProblem::NoSecret))?;
                    login.dialogue.respond_with(&keys, wire.output(clearance));
                }
            }
        };
        Err(Failure::login(match end {
            LoginEnd::Accepted => return Ok(()),
            LoginEnd::Rejected(reply) => LoginProblem::Rejected { mechanism, reply },
            LoginEnd::Cancelled(fault) => LoginProblem::Cancelled { mechanism, fault },
        }))
    }
}

/// An exchange, with its initial response if it has one.
type BegunExchange = (SaslClient, Option<zeroize::Zeroizing<String>>);

fn nonce() -> String {
    let mut octets = [0; NONCE_SIZE];
    // The generator of aws-lc has no failure that a program could survive.
    if aws_lc_rs::rand::fill(&mut octets).is_err() {
        std::process::abort();
    }
    data_encoding::BASE64.encode(&octets)
}
