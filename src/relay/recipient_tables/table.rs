//! One `[[recipients]]` table in use: its list, its directory, or the answers that its source gave
//! lately.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::list_file::ListFile;
use super::memory::{
    AnswerMemory, AnswerResult, KnownAnswer, Question, RecipientAnswer, TableChange,
    no_such_mailbox,
};
use super::waiting::{WaitPermit, WaitRefused, WaitingClients};
use crate::config::{Fault, RecipientRules, RecipientSource, TlsConfig};
use crate::net::ldap::Directory;
use crate::net::tls_io::TlsMaterial;
use crate::smtp::address::{Domain, Mailbox};

/// The most questions of a table that run at the same time, and so the connections for them.
const RUNNING_MAX: usize = 8;

/// A table in use.
#[derive(Debug)]
pub struct RecipientTable {
    rules: Arc<RecipientRules>,
    list: Option<ListFile>,
    directory: Option<Directory>,
    memory: Mutex<AnswerMemory>,
    running: Arc<Semaphore>,
    waiting: WaitingClients,
}

/// The state of a table, for `gatepost status` and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableReading {
    /// The rules of the table.
    pub rules: Arc<RecipientRules>,
    /// The addresses and domains that its file lists.
    pub listed: Option<(usize, usize)>,
    /// The mailboxes that are remembered to exist.
    pub known: usize,
    /// The mailboxes that are remembered not to exist.
    pub unknown: usize,
    /// The questions that wait or run.
    pub pending: usize,
    /// The reason why the source gave no answer the last time.
    pub trouble: Option<Arc<str>>,
    /// The domains whose server accepts any address, so that they have no check.
    pub accepts_any: Vec<Domain>,
}

impl RecipientTable {
    /// Loads the files that the table names. Returns warnings with it.
    pub(super) fn load(
        rules: &Arc<RecipientRules>,
        tls: &TlsConfig,
    ) -> Result<(Self, Vec<Fault>), Vec<Fault>> {
        let (mut list, mut directory, mut warnings) = (None, None, Vec::new());
        match &rules.source {
            RecipientSource::Ask => {}
            RecipientSource::File(file) => list = Some(ListFile::load(file)?),
            RecipientSource::Ldap(settings) => {
                let (client, more) = TlsMaterial::load_directory(
                    tls,
                    settings.trust.as_ref().unwrap_or(&tls.trust),
                )?;
                warnings.extend(more);
                let loaded = Directory::load(settings, client).map_err(|fault| vec![fault])?;
                warnings.extend(loaded.1);
                directory = Some(loaded.0);
            }
        }
        let table = Self {
            rules: Arc::clone(rules),
            list,
            directory,
            memory: Mutex::new(AnswerMemory::new(rules.cache, rules.cache_of_no())),
            running: Arc::new(Semaphore::new(RUNNING_MAX)),
            waiting: WaitingClients::default(),
        };
        Ok((table, warnings))
    }

    /// The rules of the table.
    #[must_use]
    pub fn rules(&self) -> &Arc<RecipientRules> {
        &self.rules
    }

    /// The directory, if one is searched.
    #[must_use]
    pub fn directory(&self) -> Option<&Directory> {
        self.directory.as_ref()
    }

    pub(super) fn list(&self) -> Option<&ListFile> {
        self.list.as_ref()
    }

    fn memory(&self) -> MutexGuard<'_, AnswerMemory> {
        // No code panics while it holds the lock, and no change leaves the state half-done.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what is known about a mailbox.
    #[must_use]
    pub fn known(&self, mailbox: &Mailbox) -> KnownAnswer {
        let Some(file) = &self.list else {
            return self.memory().known(mailbox, Instant::now());
        };
        KnownAnswer::Known(Ok(if file.list().contains(mailbox, self.rules.plus_tags) {
            RecipientAnswer::Exists
        } else {
            RecipientAnswer::Unknown(no_such_mailbox())
        }))
    }

    /// Lets a client wait for an answer. `client` is `None` for a client of ours, which has no limit
    /// of its own; `most` clients may wait together.
    ///
    /// # Errors
    /// [`WaitRefused`] if too many wait.
    pub fn permit_wait(
        &self,
        client: Option<IpAddr>,
        most: usize,
    ) -> Result<WaitPermit, WaitRefused> {
        self.waiting.permit(client, most)
    }

    /// Returns the question about a mailbox. Only one is asked at a time.
    #[must_use]
    pub fn question(&self, mailbox: &Mailbox) -> Question {
        self.memory().question(mailbox)
    }

    /// The permits of the questions that run.
    #[must_use]
    pub fn running(&self) -> &Arc<Semaphore> {
        &self.running
    }

    /// Returns true if it must be found out whether the server of a domain accepts any address.
    #[must_use]
    pub fn must_try_any(&self, domain: &Domain) -> bool {
        self.memory().must_try_any(domain, Instant::now())
    }

    /// Stores whether the server of a domain accepts any address; `None` if it gave no answer.
    /// Returns true if that is so and was not known before.
    #[must_use]
    pub fn set_accepts_any(&self, domain: &Domain, accepts: Option<bool>) -> bool {
        let now = Instant::now();
        self.memory().set_accepts_any(domain, accepts, now)
    }

    /// Stores the result of a question, and ends it. Returns the change of the source, if there is
    /// one.
    pub fn store(&self, mailbox: &Mailbox, result: &AnswerResult) -> Option<TableChange> {
        self.memory().store(mailbox, result, Instant::now())
    }

    /// Ends a question without a result.
    pub fn abandon(&self, mailbox: &Mailbox) {
        self.memory().end(mailbox);
    }

    /// Returns the state of the table.
    #[must_use]
    pub fn reading(&self) -> TableReading {
        let counts = self.memory().counts(Instant::now());
        TableReading {
            rules: Arc::clone(&self.rules),
            listed: self.list.as_ref().map(|file| file.list().counts()),
            known: counts.known,
            unknown: counts.unknown,
            pending: counts.pending,
            trouble: counts.trouble,
            accepts_any: counts.accepts_any,
        }
    }
}
