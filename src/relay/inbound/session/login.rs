//! AUTH: the users, their passwords, and the senders that they may use.

use std::sync::Arc;

use tracing::{debug, info, warn};

use super::state::{ClientSession, ConnectionTls};
use crate::config::MailUser;
use crate::relay::inbound::user_notice;
use crate::relay::users::{FailedTooOften, HourlyRate, LoginResult, UserStore};
use crate::smtp::address::ReversePath;
use crate::smtp::data::FromReader;
use crate::smtp::reply::{Reply, Status};
use crate::smtp::sasl::{LoginFault, PasswordLogin};
use crate::smtp::server::{FoundVerifier, LoginRequest};
use crate::telemetry::{LoginOutcome, RefusalReason};

/// The reason why a user may not log in.
#[derive(Debug, thiserror::Error)]
enum NotAdmitted {
    #[error("{0}")]
    Fault(#[from] LoginFault),
    #[error("the user is disabled")]
    Disabled,
    #[error("the user may not log in from this address")]
    Network,
    #[error("the user has been removed, or has a new password")]
    Replaced,
}

impl ClientSession {
    /// Returns the user that has logged in.
    pub(super) fn user(&self) -> Option<&Arc<MailUser>> {
        self.user
            .as_ref()
            .filter(|_| self.server.is_authenticated())
    }

    /// Returns the users as they are now, also for a session that began before the last reload.
    fn users(&self) -> Arc<UserStore> {
        Arc::clone(&self.inbound.running.load().users)
    }

    /// Answers a question of the exchange, and returns the reply to send.
    pub(super) async fn login(&mut self, request: LoginRequest) -> Reply {
        let answer = match request {
            LoginRequest::Password(login) => self.password(login).await,
            LoginRequest::Verifier(name) => {
                return match self.may_try(&name) {
                    Ok(()) => self.scram_challenge(&name),
                    Err(refusal) => self.server.login(Err(refusal)),
                };
            }
            LoginRequest::Proved(name) => self.admit(&name),
            LoginRequest::Failed(fault, name) => {
                Err(self.failed(name.as_deref().unwrap_or_default(), &fault.into()))
            }
        };
        self.server.login(answer)
    }

    /// Checks a password. A name that no user has gets the same work and the same answer.
    async fn password(&mut self, login: PasswordLogin) -> Result<(), Reply> {
        self.may_try(&login.name)?;
        let name = login.name.clone();
        let (users, client) = (self.users(), self.peer.ip());
        self.proving = users.get(&name);
        match self
            .inbound
            .clients
            .logins()
            .check(&users, client, login)
            .await
        {
            LoginResult::Right => self.admit(&name),
            LoginResult::Wrong => Err(self.failed(&name, &LoginFault::Credentials.into())),
            LoginResult::Busy => {
                self.count_login(LoginOutcome::Busy);
                Err(Reply::new(
                    454,
                    Status(7, 0),
                    "Temporary authentication failure: too many logins at once; try again later",
                ))
            }
        }
    }

    fn scram_challenge(&mut self, name: &str) -> Reply {
        let users = self.users();
        // Before its keys: if they are replaced in between, the login fails.
        self.proving = users.get(name);
        let (verifier, is_genuine) = users.verifier(name);
        let nonce = self.inbound.clients.logins().nonce();
        let binding = match &self.connection_tls {
            ConnectionTls::Tls(seen) => seen.channel_binding(),
            ConnectionTls::Clear => None,
        };
        self.server.scram_challenge(FoundVerifier {
            verifier,
            is_genuine,
            nonce: &nonce,
            binding: binding.map_or(&[], |binding| binding.as_bytes()),
        })
    }

    /// Decides whether a user that has proved its identity may log in. The proof counts only if the
    /// user still has the keys that it was checked with.
    fn admit(&mut self, name: &str) -> Result<(), Reply> {
        let proving = self.proving.take();
        let user = self
            .users()
            .get(name)
            .filter(|user| proving.is_some_and(|proving| proving.has_keys_of(user)))
            .ok_or(NotAdmitted::Replaced)
            .and_then(|user| self.may_use(&user).map(|()| user));
        match user {
            Ok(user) => {
                self.inbound
                    .clients
                    .logins()
                    .succeeded(self.peer.ip(), name);
                self.count_login(LoginOutcome::Accepted);
                debug!(listener = %self.listener.name, peer = %self.peer, user = user.name, mechanism = self.mechanism(), "client logged in");
                self.user = Some(user);
                Ok(())
            }
            Err(reason) => Err(self.failed(name, &reason)),
        }
    }

    fn may_use(&self, user: &MailUser) -> Result<(), NotAdmitted> {
        if user.disabled {
            return Err(NotAdmitted::Disabled);
        }
        if !user.may_log_in_from(self.client) {
            return Err(NotAdmitted::Network);
        }
        Ok(())
    }

    /// Checks the limits on failed logins.
    fn may_try(&mut self, name: &str) -> Result<(), Reply> {
        let checked = self.inbound.clients.logins().may_try(self.peer.ip(), name);
        checked.map_err(|FailedTooOften { network, wait }| {
            self.count_login(LoginOutcome::Limited);
            let seconds = wait.as_secs() + 1;
            let reason = format!("too many failed logins from {network}");
            self.log_refused(name, &reason);
            Reply::new(
                454,
                Status(7, 0),
                format!("Too many failed logins; try again in {seconds} s"),
            )
        })
    }

    /// Counts and logs a failed login, and returns the reply, which is the same for all reasons.
    // Rule: RFC 4954 §6.
    fn failed(&mut self, name: &str, reason: &NotAdmitted) -> Reply {
        self.user = None;
        self.inbound.clients.logins().failed(self.peer.ip(), name);
        self.count_login(LoginOutcome::Failed);
        self.log_refused(name, reason);
        Reply::new(535, Status(7, 8), "Authentication credentials invalid")
    }

    /// Logs a refused login. Names of no user are not logged: one may be a password in the wrong
    /// field.
    fn log_refused(&mut self, name: &str, reason: &impl std::fmt::Display) {
        let user = self.users().get(name);
        let user = user.as_ref().map_or("unknown", |user| user.name.as_str());
        self.is_logged = true;
        if self.should_log("login refused", format!("{user} {reason}")) {
            info!(
                listener = %self.listener.name, peer = %self.peer, user, mechanism = self.mechanism(), %reason,
                "login refused"
            );
        }
    }

    /// Counts an event against the user's limit of an hour. The postmaster is informed when the limit
    /// is reached for the first time within an hour.
    ///
    /// # Errors
    /// Returns the reply.
    pub(super) fn count_hourly(&mut self, user: &MailUser, rate: HourlyRate) -> Result<(), Reply> {
        let most = match rate {
            HourlyRate::Messages => user.messages_per_hour,
            HourlyRate::Recipients => user.recipients_per_hour,
        };
        let Some(most) = most else {
            return Ok(());
        };
        let counted = self
            .inbound
            .clients
            .logins()
            .count_hourly(&user.name, rate, most);
        counted.map_err(|reached| {
            self.is_logged = true;
            self.inbound.monitor.turned_away(&self.listener.name, rate.key());
            if reached.is_news {
                warn!(
                    listener = %self.listener.name, peer = %self.peer, user = user.name, limit = rate.key(), most,
                    remedy = "`gatepost user disable` or `gatepost user passwd` if the password is stolen; raise the limit in the file of the users if it is legitimate",
                    "user held back by a limit"
                );
                user_notice::send(&self.inbound, &self.settings.config, user, &reached, self.peer.ip());
            }
            let (noun, seconds) = (rate.noun(), reached.wait.as_secs() + 1);
            let text = format!("Too many {noun} an hour with your login; try again in {seconds} s");
            Reply::new(450, Status(7, 1), text)
        })
    }

    fn mechanism(&self) -> &'static str {
        self.server
            .mechanism()
            .map_or("", |mechanism| mechanism.name())
    }

    fn count_login(&self, outcome: LoginOutcome) {
        self.inbound
            .monitor
            .login(&self.listener.name, self.mechanism(), outcome);
    }

    /// Checks the sender of a user's mail, by the rules that the file has now. A user that was
    /// disabled or removed, or that has a new password, must log in anew.
    ///
    /// # Errors
    /// Returns the reply to MAIL.
    pub(super) fn check_sender(&mut self, from: &ReversePath) -> Result<(), Reply> {
        let Some(user) = self.user().cloned() else {
            return Ok(());
        };
        let current = self.users().get(&user.prepared);
        let current = current
            .filter(|current| current.password == user.password && self.may_use(current).is_ok());
        let Some(current) = current else {
            self.log_refused(&user.prepared, &NotAdmitted::Replaced);
            self.user = None;
            self.server.forget_login();
            return Err(Reply::new(
                530,
                Status(7, 0),
                "Your login is no longer valid; log in again",
            ));
        };
        if !current.may_send_from(from) {
            let reason = format!("the user {} may not send as {from}", current.name);
            self.is_logged = true;
            if self.should_log("sender refused", &reason) {
                info!(listener = %self.listener.name, peer = %self.peer, user = current.name, from = %from, "sender refused: it is not among the user's senders");
            }
            let connector = self
                .sender
                .as_ref()
                .map(|sender| sender.connector.name.clone());
            self.count_refusal(
                &connector.unwrap_or_default(),
                RefusalReason::Sender,
                reason,
            );
            let text = match from.mailbox() {
                Some(_) => "Sender address rejected: your login does not allow it",
                None => "The null sender is rejected: your login does not allow it",
            };
            return Err(Reply::new(553, Status(7, 1), text));
        }
        self.count_hourly(&current, HourlyRate::Messages)?;
        self.user = Some(current);
        Ok(())
    }

    /// Checks the authors of a user's message: the addresses of its From field.
    ///
    /// # Errors
    /// Returns the reply to the content.
    pub(super) fn check_authors(&mut self, from: Option<FromReader>) -> Result<(), Reply> {
        let (Some(from), Some(user)) = (from, self.user().cloned()) else {
            return Ok(());
        };
        let reason = match from.finish() {
            Err(fault) => fault.to_string(),
            Ok(authors) => match authors.iter().find(|author| !user.may_write_as(author)) {
                None => return Ok(()),
                Some(author) => {
                    format!("From address rejected: your login does not allow {author}")
                }
            },
        };
        self.is_logged = true;
        if self.should_log("message refused", &reason) {
            info!(listener = %self.listener.name, peer = %self.peer, user = user.name, reason, "message refused: its From field is not among the user's senders");
        }
        let connector = self
            .sender
            .as_ref()
            .map(|sender| sender.connector.name.clone());
        let listed = format!("{reason} (user {})", user.name);
        self.count_refusal(
            &connector.unwrap_or_default(),
            RefusalReason::Sender,
            listed,
        );
        let text: String = reason
            .chars()
            .map(|c| if c.is_ascii() { c } else { '?' })
            .collect();
        Err(Reply::new(550, Status(7, 1), text))
    }
}
