//! The way of a message from its content to the spool, and from there to the scheduler.

use jiff::Timestamp;
use tokio::select;
use tokio::time::Instant;
use tracing::{debug, error, info};

use super::client_log::send_failed;
use super::state::IncomingMessage;
use super::state::{ClientSession, SessionEndReason};
use crate::config::EvidencePath;
use crate::policy::connector::inbound_policy;
use crate::policy::relay_access;
use crate::policy::tls::{PeerCertificate, TlsFacts, TlsOutcome};
use crate::relay::inbound::buffered::{BufferedStream, ClientStream};
use crate::relay::inbound::received::{self, Received, SessionKind};
use crate::relay::inbound::timeouts::Progress;
use crate::smtp::address::Domain;
use crate::smtp::data::{FromReader, HeaderCompleter};
use crate::smtp::envelope::{ClientOrigin, Envelope, Recipient};
use crate::smtp::reply::{Reply, Status};
use crate::storage::evidence::{InboundParties, InboundSession};
use crate::storage::spool::{Claimed, Entry, SpoolError};
use crate::telemetry::{AcceptedMessage, RefusalReason};

impl ClientSession {
    /// Adds content to the draft, and begins the draft before the first octets. Returns true if
    /// [`ClientSession::write_content`] must follow. `large` is true if the draft may collect large
    /// blocks.
    ///
    /// If the content cannot be stored, the remainder is discarded, and the client gets the error
    /// as the reply to its content.
    pub(super) fn add_content(&mut self, octets: &[u8], large: bool) -> bool {
        let added = self.add_to_draft(octets, large);
        added.unwrap_or_else(|fault| {
            self.discard_content(&fault);
            false
        })
    }

    /// Writes the collected content to the disk.
    pub(super) async fn write_content(&mut self) {
        let Some(incoming) = &mut self.draft else {
            return;
        };
        if let Err(fault) = incoming.draft.write_out().await {
            self.discard_content(&fault);
        }
    }

    fn discard_content(&mut self, fault: &SpoolError) {
        self.draft = None;
        let reply = self.cannot_store(fault);
        self.server.reject_content(reply);
    }

    fn add_to_draft(&mut self, octets: &[u8], large: bool) -> Result<bool, SpoolError> {
        if self.draft.is_none() {
            let (smtputf8, recipients) = match self.server.transaction() {
                Some((from, recipients)) => (from.smtputf8, recipients),
                None => (false, &[][..]),
            };
            self.draft = Some(Box::new(self.begin_draft(smtputf8, recipients)?));
        }
        match &mut self.draft {
            Some(incoming) => {
                incoming.draft.use_large_blocks(large);
                incoming.add(octets)
            }
            None => Ok(false),
        }
    }

    /// Begins a draft with our Received field.
    // Rule: RFC 5321 §4.4.
    fn begin_draft(
        &self,
        smtputf8: bool,
        recipients: &[Recipient],
    ) -> Result<IncomingMessage, SpoolError> {
        let mut draft = self.inbound.spool.draft();
        let date = received::date(Timestamp::now());
        let config = &self.settings.config;
        let is_ours = relay_access::is_ours(&config.relay, self.client_rights());
        let completer = is_ours.then(|| {
            HeaderCompleter::new(
                date.clone(),
                format!("<{}@{}>", draft.id(), config.hostname),
            )
        });
        // Every transaction has a clearance, since MAIL is accepted only with one.
        if let Some(sender_clearance) = &self.sender_clearance {
            let received = Received {
                client: self.server.helo(),
                address: self.peer.ip(),
                client_name: self.client_name.as_ref(),
                hostname: &config.hostname,
                clearance: &sender_clearance.clearance,
                smtputf8,
                is_user: self.user().is_some(),
                id: draft.id(),
                recipients,
                date: &date,
            };
            draft.add(received.field().as_bytes())?;
        }
        let checks_from = self.user().is_some_and(|user| user.check_from);
        let from = checks_from.then(FromReader::default);
        Ok(IncomingMessage {
            draft,
            completer,
            from,
        })
    }

    /// Stores the message durably, replies to its content, and gives it to the scheduler.
    pub(super) async fn commit<S: ClientStream>(
        &mut self,
        connection: &mut BufferedStream<S>,
        mut envelope: Envelope,
    ) -> Result<(), SessionEndReason> {
        if !relay_access::may_relay(&self.settings.config.relay, self.client_rights()) {
            envelope.origin = ClientOrigin::Stranger;
        }
        let user_connector = self.user().and_then(|user| user.connector.as_ref());
        envelope.connector = user_connector.map(|name| name.value.as_str().into());
        let incoming = match self.draft.take() {
            Some(incoming) => Ok(*incoming),
            None => self.begin_draft(envelope.smtputf8, &envelope.recipients),
        };
        let incoming = match incoming {
            Ok(mut incoming) => match self.check_authors(incoming.from.take()) {
                Ok(()) => Ok(incoming),
                Err(refusal) => {
                    self.reply(connection, &refusal);
                    self.seat.free();
                    self.command_since = Instant::now();
                    return Ok(());
                }
            },
            Err(fault) => Err(fault),
        };
        let draft = incoming.and_then(|incoming| incoming.finish(&mut envelope));
        self.describe_session(&mut envelope);
        let stored = match draft {
            Ok(draft) => self.inbound.spool.commit(draft, envelope).await,
            Err(fault) => Err(fault),
        };
        let entry = match stored {
            Ok((receipt, entry)) => {
                let reply = self.server.accepted(&receipt);
                connection.add_reply(&reply);
                self.seat.record_activity();
                (self.message_since, self.progress) = (Instant::now(), Progress::default());
                Some(entry)
            }
            Err(fault) => {
                let reply = self.cannot_store(&fault);
                self.reply(connection, &reply);
                None
            }
        };
        if let Some(entry) = entry {
            self.log_accepted(&entry);
            if let Some(sender_clearance) = &self.sender_clearance {
                self.inbound.monitor.accepted(&AcceptedMessage {
                    listener: &self.listener.name,
                    connector: &sender_clearance.connector.name,
                    clearance: &sender_clearance.clearance,
                    octets: entry.size,
                    recipients: entry.envelope.recipients.len(),
                });
            }
            self.queue(connection, entry).await?;
        }
        self.seat.free();
        self.command_since = Instant::now();
        Ok(())
    }

    /// Adds this session to the envelope of its message: in full for the evidence, in short without
    /// evidence.
    fn describe_session(&self, envelope: &mut Envelope) {
        let session = self.inbound_session(envelope.smtputf8);
        if self.settings.config.evidence.path.value == EvidencePath::Off {
            envelope.received = session.map(|session| Box::new(session.into_reception()));
        } else {
            envelope.arrival = session.map(|session| session.arrival());
        }
    }

    /// Returns the facts about this session.
    fn inbound_session(&self, smtputf8: bool) -> Option<InboundSession> {
        let config = &self.settings.config;
        let sender_clearance = self.sender_clearance.as_ref()?;
        let hello = self.server.helo().map(|client| client.name.to_string());
        let kind = SessionKind {
            clearance: &sender_clearance.clearance,
            client: self.server.helo(),
            smtputf8,
            is_user: self.user().is_some(),
        };
        let parties = InboundParties {
            listener: &self.listener.name,
            peer: self.peer,
            is_client: self.client.is_some(),
            name: self.client_name.as_ref().map(Domain::as_str),
            proxy: self.proxy,
            hello: hello.as_deref(),
            user: self.user().map(|user| user.name.as_str()),
            protocol: kind.protocol(),
            connector: &sender_clearance.connector.name,
            configuration: &config.source.digest,
        };
        Some(InboundSession::of(
            &parties,
            &inbound_policy(&sender_clearance.connector),
            &sender_clearance.clearance,
        ))
    }

    /// Gives the stored message to the scheduler. If the channel is full, the 250 is sent before
    /// the wait.
    async fn queue<S: ClientStream>(
        &self,
        connection: &mut BufferedStream<S>,
        entry: Claimed<Entry>,
    ) -> Result<(), SessionEndReason> {
        use tokio::sync::mpsc::error::TrySendError;
        let entry = match self.inbound.accepted.try_send(entry) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(entry) | TrySendError::Closed(entry)) => entry,
        };
        // The client gets its 250 at once, and only its next command waits. If the reply cannot be
        // sent, the accepted message still goes to the scheduler.
        let flushed = connection
            .flush(self.settings.config.timeouts.command)
            .await;
        let id = entry.id;
        select! {
            sent = self.inbound.accepted.send(entry) => if sent.is_err() {
                error!(queue_id = %id, "message stays in the spool until the next start: the scheduler has ended");
            },
            () = self.stop.cancelled() => debug!(queue_id = %id, "message stays in the spool until the next start"),
        }
        flushed.map_err(|fault| send_failed(&fault))
    }

    /// Logs that the message is accepted.
    fn log_accepted(&self, entry: &Entry) {
        let sender_clearance = self.sender_clearance.as_ref();
        let connector = sender_clearance.map_or("", |cleared| cleared.connector.name.as_str());
        let tls = match sender_clearance.map(|cleared| cleared.clearance.outcome()) {
            Some(TlsOutcome::Tls(TlsFacts {
                version,
                certificate: PeerCertificate::Unproved(key),
                ..
            })) => {
                format!("{version}, key not proved: {key}")
            }
            Some(TlsOutcome::Tls(facts)) => facts.version.to_string(),
            Some(TlsOutcome::Clear(_)) | None => "none".to_owned(),
        };
        info!(
            queue_id = %entry.id, from = %entry.envelope.reverse_path, recipients = entry.envelope.recipients.len(),
            size = entry.size, listener = &*self.listener.name, peer = %self.peer, connector,
            // Both fields name the sender's connector; other log lines use `connector` for the
            // recipients' connector.
            from_connector = connector, user = self.user().map(|user| user.name.as_str()), tls.got = tls, "message accepted"
        );
    }

    /// Returns the reply to MAIL if the spool has no space for a message of so many octets or is not
    /// this relay's any more, or if the evidence has no space for its records.
    // Rule: RFC 5321 §4.3.2.
    pub(super) fn admit_mail(&self, octets: u64) -> Result<(), Reply> {
        if !self.inbound.evidence.has_space() {
            self.storage_refusal(
                "evidence full",
                &"the evidence has reached 95 % of [evidence] max_size",
                "run gatepost evidence archive, or raise [evidence] max_size and reload",
            );
            return Err(insufficient_storage());
        }
        self.inbound
            .spool
            .admit(octets)
            .map_err(|fault| self.cannot_store(&fault))
    }

    /// Logs that a message cannot be stored, and returns the reply, which is always transient
    /// (4xx).
    // Rule: RFC 5321 §4.1.1.4.
    pub(super) fn cannot_store(&self, fault: &SpoolError) -> Reply {
        if matches!(fault, SpoolError::Full(_)) {
            self.storage_refusal("disk full", fault, "free space on the spool's disk");
            return insufficient_storage();
        }
        if matches!(fault, SpoolError::Draining) {
            self.storage_refusal("draining", fault, "see the error");
            let text = "This relay hands over its queue, try another one";
            return Reply::new(451, Status(3, 2), text);
        }
        if matches!(fault, SpoolError::NotOwner(_)) {
            // The error names its remedy, and the daemon has logged both.
            self.storage_refusal("not owner", fault, "see the error");
        } else {
            let remedy =
                "check that the disk of the spool, or its database, works and can be written";
            self.storage_refusal("disk error", fault, remedy);
        }
        Reply::new(451, Status(3, 0), "Local trouble, try again later")
    }

    /// Counts and logs that a message cannot be stored. Each trouble is logged once a minute; each
    /// client's refusal is logged as well.
    fn storage_refusal(&self, trouble: &str, error: &dyn std::fmt::Display, remedy: &str) {
        let connector = self
            .sender_clearance
            .as_ref()
            .map_or("", |cleared| cleared.connector.name.as_str());
        self.inbound
            .monitor
            .refused(&self.listener.name, connector, RefusalReason::Storage);
        if self
            .inbound
            .monitor
            .should_log("message cannot be stored", &self.listener.name, trouble)
        {
            let (from, from_connector) = self.sender_fields();
            error!(
                listener = %self.listener.name, peer = %self.peer, from, from_connector, %error, remedy,
                "message cannot be stored"
            );
        }
    }
}

/// Returns the reply to a message for which there is no space.
fn insufficient_storage() -> Reply {
    Reply::new(
        452,
        Status(3, 1),
        "Insufficient system storage, try again later",
    )
}
