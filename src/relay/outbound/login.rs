//! Our login at a smart host: AUTH is written only on a session that proves who the host is.

use zeroize::Zeroizing;

use crate::net::oauth::{AccessToken, TokenSource};
use crate::net::tls_io::{ChannelBinding, CompletedHandshake};
use crate::policy::failure::{Cause, Failure, LoginProblem};
use crate::policy::tls::{Clearance, PeerProof};
use crate::relay::smart_host_logins::{LoadedSecret, SmartHostLogin};
use crate::smtp::client::{
    DialogueStage, Extensions, LoginDialogue, LoginEnd, LoginStep, ProtocolViolation,
};
use crate::smtp::reply::Severity;
use crate::smtp::sasl::{ClientPassword, ClientToken, SaslClient};

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
        mut wire: Wire,
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
        let mut token = None;
        let result = match self.prepare_login(extensions, clearance, record).await {
            Ok((proof, exchange)) => {
                attempt.mechanism = Some(exchange.client.mechanism());
                token.clone_from(&exchange.token);
                let end = self.converse_login(&mut wire, clearance, proof, exchange);
                end.await
            }
            Err(problem) => Err(Failure::login(problem)),
        };
        attempt.verdict = LoginVerdict::of(&result);
        let login = attempt.session_login();
        record.steps.login = Some(attempt);
        let Err(failure) = result else {
            return Ok((wire, login));
        };
        self.quit(wire).await;
        if let Some(token) = token.filter(|_| is_refusal(&failure) && !record.has_new_token) {
            record.has_new_token = token.renew().await;
        }
        Err(failure.with_session(clearance.session()))
    }

    /// Chooses the mechanism and gets the secret, if a login is possible on this session at all.
    async fn prepare_login<'p>(
        &self,
        extensions: Extensions,
        clearance: &'p Clearance,
        record: &DialRecord,
    ) -> Result<(&'p PeerProof, LoginExchange), LoginProblem> {
        let proof = clearance.peer_proof().ok_or(LoginProblem::Unproven)?;
        let login = self.snapshot.logins().get(self.connector);
        let login = login.ok_or(LoginProblem::NoSecret)?;
        let offer = extensions.auth;
        if !offer.is_offered {
            return Err(LoginProblem::NotOffered);
        }
        let exchange = match login.secret() {
            LoadedSecret::Password(file) => {
                let seen = record.seen.as_ref();
                let binding = seen.and_then(CompletedHandshake::channel_binding);
                let names = "SCRAM-SHA-256 nor PLAIN nor LOGIN";
                let mechanism = ClientPassword::choose(offer.passwords, binding.is_some())
                    .ok_or(LoginProblem::NoMechanism { names })?;
                let password = file.login(login.user());
                let password = password.map_err(|_| LoginProblem::NoSecret)?;
                let binding = binding.map(ChannelBinding::as_bytes);
                let (client, initial) = SaslClient::begin(mechanism, &password, binding, &nonce());
                LoginExchange {
                    client,
                    initial,
                    token: None,
                }
            }
            LoadedSecret::Tokens(source) => {
                let names = "XOAUTH2 nor OAUTHBEARER";
                let mechanism = offer.token.ok_or(LoginProblem::NoMechanism { names })?;
                let token = source.token().await;
                let token = token.map_err(|error| LoginProblem::NoToken(error.to_string()))?;
                let (client, initial) =
                    SaslClient::begin_with_token(mechanism, &self.client_token(login, &token));
                let source = source.clone();
                LoginExchange {
                    client,
                    initial,
                    token: Some(UsedToken { source, token }),
                }
            }
        };
        Ok((proof, exchange))
    }

    fn client_token(&self, login: &SmartHostLogin, token: &AccessToken) -> ClientToken {
        ClientToken {
            user: login.user().to_owned(),
            token: Zeroizing::new(token.secret().to_owned()),
            host: self.hop.host.to_string(),
            port: self.hop.port,
        }
    }

    async fn converse_login(
        &self,
        wire: &mut Wire,
        clearance: &Clearance,
        proof: &PeerProof,
        exchange: LoginExchange,
    ) -> Result<(), Failure> {
        let LoginExchange {
            client,
            initial,
            token,
        } = exchange;
        let mechanism = client.mechanism();
        let mut login = ProvenLogin {
            _proof: proof,
            dialogue: LoginDialogue::start((client, initial), wire.output(clearance)),
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
            LoginEnd::Rejected { reply, status } => LoginProblem::Rejected {
                mechanism,
                reply,
                status,
                remedy: token.map(|token| token.source.login_remedy()),
            },
            LoginEnd::Cancelled(fault) => LoginProblem::Cancelled { mechanism, fault },
        }))
    }
}

/// An exchange that can begin.
struct LoginExchange {
    client: SaslClient,
    /// The initial response, if the mechanism has one.
    initial: Option<Zeroizing<String>>,
    /// The access token, if the mechanism sends one.
    token: Option<UsedToken>,
}

/// An access token, and where it comes from.
#[derive(Clone)]
struct UsedToken {
    source: TokenSource,
    token: AccessToken,
}

impl UsedToken {
    /// Reports that the host refuses the token. Returns true if there is another one.
    async fn renew(&self) -> bool {
        self.source.refuse(&self.token);
        let next = self.source.token().await;
        next.is_ok_and(|next| next.secret() != self.token.secret())
    }
}

/// Returns whether the host has refused the login for good, and not for the moment.
fn is_refusal(failure: &Failure) -> bool {
    match &failure.cause {
        Cause::Login(problem) => problem
            .reply()
            .is_some_and(|reply| reply.severity() == Severity::Permanent),
        _ => false,
    }
}

fn nonce() -> String {
    let mut octets = [0; NONCE_SIZE];
    // The generator of aws-lc has no failure that a program could survive.
    if aws_lc_rs::rand::fill(&mut octets).is_err() {
        std::process::abort();
    }
    data_encoding::BASE64.encode(&octets)
}
