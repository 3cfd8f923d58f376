//! The answers about mailboxes that a source gave lately, and the questions that it is asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::answers::AnswerCache;
use crate::policy::mailbox_key::MailboxKey;
use crate::smtp::address::{Domain, Mailbox};
use crate::smtp::reply::{EnhancedStatusCode, Status};

/// The most mailboxes that are remembered to exist. Those that do not exist are remembered apart, so
/// that nobody who guesses addresses can push the others out; all spellings of a mailbox count as
/// one.
const YES_MAX: usize = 50_000;
/// The most of them whose address may have a tag. A mailbox can have any number of tags, so these
/// are remembered apart too.
const TAGGED_MAX: usize = 20_000;
/// The most mailboxes that are remembered not to exist.
const NO_MAX: usize = 20_000;
/// The most mailboxes for which it is remembered that there was no answer.
const TROUBLE_MAX: usize = 1000;
/// The most domains for which it is remembered whether their server accepts any address.
const DOMAINS_MAX: usize = 1000;
/// The most questions that wait or run at the same time.
const QUESTIONS_MAX: usize = 200;
/// The time for which a source without an answer is not asked again.
const TROUBLE_TIME: Duration = Duration::from_secs(10);
/// The number of mailboxes without an answer, one after another, from which on the source is
/// reported to be in trouble. It is asked nevertheless.
const UNANSWERED_MAX: u32 = 10;
/// The time for which no address is tried again at a server that did not answer whether it accepts
/// any.
const UNKNOWN_DOMAIN_TIME: Duration = Duration::from_mins(1);

/// The answer about a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipientAnswer {
    /// The mailbox exists.
    Exists,
    /// The mailbox does not exist, or its server rejects it for good with this status.
    Unknown(EnhancedStatusCode),
}

/// The reason why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientTrouble {
    /// The reason in words.
    pub reason: Arc<str>,
    /// The questions that have no answer for this reason.
    pub scope: TroubleScope,
}

/// The questions that trouble concerns. A client chooses the mailbox that is asked about, so nothing
/// that may depend on the mailbox concerns others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TroubleScope {
    /// The source answers no question at present.
    Source,
    /// The source gave no answer about this mailbox.
    Mailbox,
    /// The source was not asked, because of a limit of ours. This says nothing about it.
    Limit,
}

/// The result of a question.
pub type AnswerResult = Result<RecipientAnswer, RecipientTrouble>;

/// The state of a question that others may wait for.
pub type PendingAnswer = watch::Receiver<Option<AnswerResult>>;

/// The knowledge about a mailbox without a new question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownAnswer {
    /// An answer, or the reason why there is none.
    Known(AnswerResult),
    /// The mailbox counts as existing: its server accepts any address, so that its answer means
    /// nothing.
    Unchecked,
    /// Nothing is known; the source must be asked.
    Unknown,
}

/// A question: one that is asked already, or a new one.
#[derive(Debug)]
pub enum Question {
    /// Another client waits for the answer already.
    Pending(PendingAnswer),
    /// The source must be asked; the answer goes to this sender.
    New(watch::Sender<Option<AnswerResult>>, PendingAnswer),
    /// Too many questions wait.
    TooMany,
}

/// A change that is worth a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableChange {
    /// The source has begun to give no answers.
    Trouble(Arc<str>),
    /// The source answers again.
    Recovered,
}

/// The counts of a memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AnswerCounts {
    pub(super) known: usize,
    pub(super) unknown: usize,
    pub(super) pending: usize,
    pub(super) trouble: Option<Arc<str>>,
    pub(super) accepts_any: Vec<Domain>,
}

/// The answers and questions of one table.
#[derive(Debug)]
pub(super) struct AnswerMemory {
    /// The time for which a yes is kept, and a no.
    yes_time: Duration,
    no_time: Duration,
    yes: AnswerCache<MailboxKey, ()>,
    tagged: AnswerCache<MailboxKey, ()>,
    no: AnswerCache<Mailbox, EnhancedStatusCode>,
    trouble: AnswerCache<Mailbox, Arc<str>>,
    /// The reason why the source gives no answers, and the time until which it is not asked.
    general_trouble: Option<(Instant, Arc<str>)>,
    /// The mailboxes without an answer since the last answer.
    unanswered: u32,
    /// True for domains whose server accepts any address.
    accepts_any: AnswerCache<Domain, bool>,
    pending: HashMap<Mailbox, PendingAnswer>,
}

impl AnswerMemory {
    pub(super) fn new(yes_time: Duration, no_time: Duration) -> Self {
        Self {
            yes_time,
            no_time,
            yes: AnswerCache::new(YES_MAX),
            tagged: AnswerCache::new(TAGGED_MAX),
            no: AnswerCache::new(NO_MAX),
            trouble: AnswerCache::new(TROUBLE_MAX),
            general_trouble: None,
            unanswered: 0,
            accepts_any: AnswerCache::new(DOMAINS_MAX),
            pending: HashMap::new(),
        }
    }

    /// Returns the answers of yes among which that about a mailbox is.
    fn yes_of(&mut self, key: &MailboxKey) -> &mut AnswerCache<MailboxKey, ()> {
        if key.may_have_tag() {
            &mut self.tagged
        } else {
            &mut self.yes
        }
    }

    /// Returns what is known about a mailbox. A yes counts for every spelling of the mailbox, and
    /// everything else for that which was asked about: letter case may matter to the source, and a
    /// no about another spelling must not reject the mailbox.
    pub(super) fn known(&mut self, mailbox: &Mailbox, now: Instant) -> KnownAnswer {
        let key = MailboxKey::new(mailbox);
        if self.yes_of(&key).get(&key, now).is_some() {
            return KnownAnswer::Known(Ok(RecipientAnswer::Exists));
        }
        if let Some(domain) = mailbox.host().domain()
            && self.accepts_any.get(domain, now) == Some(true)
        {
            return KnownAnswer::Unchecked;
        }
        if let Some(status) = self.no.get(mailbox, now) {
            return KnownAnswer::Known(Ok(RecipientAnswer::Unknown(status)));
        }
        if let Some((until, reason)) = &self.general_trouble
            && *until > now
        {
            return KnownAnswer::Known(Err(RecipientTrouble {
                reason: Arc::clone(reason),
                scope: TroubleScope::Source,
            }));
        }
        match self.trouble.get(mailbox, now) {
            Some(reason) => KnownAnswer::Known(Err(RecipientTrouble {
                reason,
                scope: TroubleScope::Mailbox,
            })),
            None => KnownAnswer::Unknown,
        }
    }

    /// Returns the question about a mailbox. Only one is asked at a time.
    pub(super) fn question(&mut self, mailbox: &Mailbox) -> Question {
        if let Some(pending) = self.pending.get(mailbox) {
            return Question::Pending(pending.clone());
        }
        if self.pending.len() >= QUESTIONS_MAX {
            return Question::TooMany;
        }
        let (sender, receiver) = watch::channel(None);
        self.pending.insert(mailbox.clone(), receiver.clone());
        Question::New(sender, receiver)
    }

    /// Ends the question about a mailbox.
    pub(super) fn end(&mut self, mailbox: &Mailbox) {
        self.pending.remove(mailbox);
    }

    /// Returns true if it must be found out whether the server of a domain accepts any address.
    pub(super) fn must_try_any(&mut self, domain: &Domain, now: Instant) -> bool {
        self.accepts_any.get(domain, now).is_none()
    }

    /// Stores whether the server of a domain accepts any address; `None` if it gave no answer.
    /// Returns true if that is so and was not known before.
    pub(super) fn set_accepts_any(
        &mut self,
        domain: &Domain,
        accepts: Option<bool>,
        now: Instant,
    ) -> bool {
        let time = match accepts {
            Some(_) => self.yes_time,
            None => UNKNOWN_DOMAIN_TIME.min(self.yes_time),
        };
        let before = self.accepts_any.last(domain);
        let any = accepts == Some(true);
        self.accepts_any.insert(domain.clone(), now + time, any);
        any && before != Some(true)
    }

    /// Stores the result of a question, and ends it. Returns the change of the source, if there is
    /// one.
    pub(super) fn store(
        &mut self,
        mailbox: &Mailbox,
        result: &AnswerResult,
        now: Instant,
    ) -> Option<TableChange> {
        self.end(mailbox);
        let answer = match result {
            Ok(answer) => *answer,
            Err(trouble) => return self.store_trouble(mailbox, trouble, now),
        };
        self.store_answer(mailbox, answer, now);
        self.unanswered = 0;
        let trouble = self.general_trouble.take();
        trouble.map(|_| TableChange::Recovered)
    }

    fn store_trouble(
        &mut self,
        mailbox: &Mailbox,
        trouble: &RecipientTrouble,
        now: Instant,
    ) -> Option<TableChange> {
        let (until, reason) = (now + TROUBLE_TIME, Arc::clone(&trouble.reason));
        let general_until = match trouble.scope {
            TroubleScope::Limit => return None,
            TroubleScope::Source => until,
            TroubleScope::Mailbox => {
                self.trouble
                    .insert(mailbox.clone(), until, Arc::clone(&reason));
                self.unanswered = self.unanswered.saturating_add(1);
                if self.unanswered < UNANSWERED_MAX || self.general_trouble.is_some() {
                    return None;
                }
                // It is reported, and the other mailboxes are asked about nevertheless.
                now
            }
        };
        let new = (general_until, Arc::clone(&reason));
        let before = self.general_trouble.replace(new);
        before.is_none().then_some(TableChange::Trouble(reason))
    }

    fn store_answer(&mut self, mailbox: &Mailbox, answer: RecipientAnswer, now: Instant) {
        let key = MailboxKey::new(mailbox);
        self.no.remove(mailbox);
        match answer {
            RecipientAnswer::Exists => {
                let domain = mailbox.host().domain();
                let accepts_any =
                    domain.is_some_and(|domain| self.accepts_any.last(domain) == Some(true));
                // Such a yes means nothing.
                if accepts_any {
                    self.yes_of(&key).remove(&key);
                } else {
                    let until = now + self.yes_time;
                    self.yes_of(&key).insert(key, until, ());
                }
            }
            RecipientAnswer::Unknown(status) => {
                self.yes_of(&key).remove(&key);
                self.no.insert(mailbox.clone(), now + self.no_time, status);
            }
        }
    }

    /// Returns the counts at this moment.
    pub(super) fn counts(&self, now: Instant) -> AnswerCounts {
        let accepts_any = self.accepts_any.iter(now).filter(|(_, any)| **any);
        let mut accepts_any: Vec<_> = accepts_any.map(|(domain, _)| domain.clone()).collect();
        accepts_any.sort();
        let trouble = self.general_trouble.as_ref();
        AnswerCounts {
            known: self.yes.count(now) + self.tagged.count(now),
            unknown: self.no.count(now),
            pending: self.pending.len(),
            trouble: trouble.map(|(_, reason)| Arc::clone(reason)),
            accepts_any,
        }
    }
}

/// The status of a mailbox that does not exist, 5.1.1 (RFC 3463 §3.2).
#[must_use]
pub fn no_such_mailbox() -> EnhancedStatusCode {
    EnhancedStatusCode::permanent(Status(1, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn memory() -> (AnswerMemory, Instant) {
        (AnswerMemory::new(10 * MINUTE, MINUTE), Instant::now())
    }

    fn mailbox(local: &str) -> Mailbox {
        Mailbox::parse(&format!("{local}@example.com")).expect("a mailbox")
    }

    fn no() -> RecipientAnswer {
        RecipientAnswer::Unknown(no_such_mailbox())
    }

    fn trouble(scope: TroubleScope) -> AnswerResult {
        Err(RecipientTrouble {
            reason: "no".into(),
            scope,
        })
    }

    #[test]
    fn a_yes_is_kept_longer_than_a_no() {
        let (mut memory, now) = memory();
        let (user, nobody) = (mailbox("user"), mailbox("nobody"));
        memory.store(&user, &Ok(RecipientAnswer::Exists), now);
        memory.store(&nobody, &Ok(no()), now);
        let yes = KnownAnswer::Known(Ok(RecipientAnswer::Exists));
        for (after, of_user, of_nobody) in [
            (0, &yes, KnownAnswer::Known(Ok(no()))),
            (59, &yes, KnownAnswer::Known(Ok(no()))),
            (60, &yes, KnownAnswer::Unknown),
            (599, &yes, KnownAnswer::Unknown),
            (600, &KnownAnswer::Unknown, KnownAnswer::Unknown),
        ] {
            let at = now + Duration::from_secs(after);
            assert_eq!(memory.known(&user, at), *of_user, "after {after} s");
            assert_eq!(memory.known(&nobody, at), of_nobody, "after {after} s");
        }
    }

    #[test]
    fn a_source_without_an_answer_is_left_alone_for_a_while() {
        let (mut memory, now) = memory();
        let (user, other) = (mailbox("user"), mailbox("other"));
        let changed = memory.store(&user, &trouble(TroubleScope::Source), now);
        assert_eq!(changed, Some(TableChange::Trouble("no".into())));
        assert_eq!(
            memory.known(&other, now),
            KnownAnswer::Known(trouble(TroubleScope::Source))
        );
        let later = now + TROUBLE_TIME;
        assert_eq!(memory.known(&other, later), KnownAnswer::Unknown);
        assert_eq!(
            memory.store(&user, &trouble(TroubleScope::Source), later),
            None,
            "logged once"
        );
        assert_eq!(memory.counts(later + MINUTE).trouble.as_deref(), Some("no"));
        let changed = memory.store(&other, &Ok(no()), later);
        assert_eq!(changed, Some(TableChange::Recovered));
        assert_eq!(memory.known(&user, later), KnownAnswer::Unknown);
        assert_eq!(memory.counts(later).trouble, None);
    }

    /// Remembered answers count while the source gives none.
    #[test]
    fn trouble_changes_nothing_for_mailboxes_that_are_known() {
        let (mut memory, now) = memory();
        let user = mailbox("user");
        memory.store(&user, &Ok(RecipientAnswer::Exists), now);
        memory.store(&mailbox("other"), &trouble(TroubleScope::Source), now);
        let yes = KnownAnswer::Known(Ok(RecipientAnswer::Exists));
        assert_eq!(memory.known(&user, now), yes);
    }

    #[test]
    fn trouble_with_one_mailbox_is_not_trouble_with_the_others() {
        let (mut memory, now) = memory();
        let (user, other) = (mailbox("user"), mailbox("other"));
        assert_eq!(
            memory.store(&user, &trouble(TroubleScope::Mailbox), now),
            None
        );
        assert_eq!(
            memory.known(&user, now),
            KnownAnswer::Known(trouble(TroubleScope::Mailbox))
        );
        assert_eq!(memory.known(&other, now), KnownAnswer::Unknown);
        assert_eq!(
            memory.known(&user, now + TROUBLE_TIME),
            KnownAnswer::Unknown
        );
    }

    #[test]
    fn a_server_that_accepts_any_address_is_reported_once_and_tried_again() {
        let (mut memory, now) = memory();
        let (user, domain) = (
            mailbox("user"),
            Domain::parse("example.com").expect("a domain"),
        );
        assert!(memory.must_try_any(&domain, now));
        assert!(
            memory.set_accepts_any(&domain, Some(true), now),
            "this is new"
        );
        memory.store(&user, &Ok(RecipientAnswer::Exists), now);
        assert_eq!(memory.known(&user, now), KnownAnswer::Unchecked);
        assert_eq!(memory.known(&mailbox("other"), now), KnownAnswer::Unchecked);
        assert_eq!(
            memory.counts(now).accepts_any,
            std::slice::from_ref(&domain)
        );
        let later = now + 10 * MINUTE;
        assert!(memory.must_try_any(&domain, later));
        assert_eq!(memory.known(&user, later), KnownAnswer::Unknown);
        assert!(
            !memory.set_accepts_any(&domain, Some(true), later),
            "this is known"
        );
        assert!(!memory.set_accepts_any(&domain, Some(false), later));
        assert_eq!(memory.known(&user, later), KnownAnswer::Unknown);
        assert!(memory.counts(later).accepts_any.is_empty());
        // Without an answer the server is tried again soon.
        assert!(!memory.set_accepts_any(&domain, None, later));
        assert!(!memory.must_try_any(&domain, later));
        assert!(memory.must_try_any(&domain, later + MINUTE));
    }

    #[test]
    fn one_question_is_asked_at_a_time_and_their_number_is_bounded() {
        let (mut memory, now) = memory();
        let user = mailbox("user");
        assert!(matches!(memory.question(&user), Question::New(..)));
        assert!(matches!(memory.question(&user), Question::Pending(_)));
        for at in 1..QUESTIONS_MAX {
            let other = mailbox(&format!("user{at}"));
            assert!(matches!(memory.question(&other), Question::New(..)));
        }
        assert!(matches!(
            memory.question(&mailbox("more")),
            Question::TooMany
        ));
        memory.store(&user, &Ok(no()), now);
        assert!(matches!(
            memory.question(&mailbox("more")),
            Question::New(..)
        ));
    }

    /// Somebody finds as many slow or odd addresses as he likes. The source is reported, and the
    /// others are asked about.
    #[test]
    fn trouble_with_many_mailboxes_is_reported_and_stops_no_question() {
        let (mut memory, now) = memory();
        for at in 1..=3 * UNANSWERED_MAX {
            let odd = mailbox(&format!("odd{at}"));
            let change = memory.store(&odd, &trouble(TroubleScope::Mailbox), now);
            let wanted = (at == UNANSWERED_MAX).then(|| TableChange::Trouble("no".into()));
            assert_eq!(change, wanted, "after {at}");
            let is_reported = memory.counts(now).trouble.is_some();
            assert_eq!(is_reported, at >= UNANSWERED_MAX, "after {at}");
            assert_eq!(memory.known(&mailbox("user"), now), KnownAnswer::Unknown);
        }
        let change = memory.store(&mailbox("user"), &Ok(no()), now);
        assert_eq!(change, Some(TableChange::Recovered));
        let change = memory.store(&mailbox("odd"), &trouble(TroubleScope::Mailbox), now);
        assert_eq!(change, None, "the count begins again");
    }

    /// A question that a limit of ours prevented says nothing about the source or the mailbox.
    #[test]
    fn a_question_that_was_not_asked_leaves_nothing_behind() {
        let (mut memory, now) = memory();
        let user = mailbox("user");
        assert!(matches!(memory.question(&user), Question::New(..)));
        for _ in 0..2 * UNANSWERED_MAX {
            let change = memory.store(&user, &trouble(TroubleScope::Limit), now);
            assert_eq!(change, None);
        }
        assert_eq!(memory.known(&user, now), KnownAnswer::Unknown);
        assert_eq!(memory.counts(now).trouble, None);
        assert!(matches!(memory.question(&user), Question::New(..)));
    }

    /// A server that takes `user` for the mailbox says yes to each of these spellings. A mailbox that
    /// was not used meanwhile is remembered nevertheless.
    #[test]
    fn no_spelling_of_one_mailbox_pushes_another_out() {
        let (mut memory, now) = memory();
        let known = mailbox("known");
        memory.store(&known, &Ok(RecipientAnswer::Exists), now);
        for at in 0..65_536_u32 {
            let spelt = (0..16).map(|bit| if at >> bit & 1 == 0 { 'a' } else { 'A' });
            let other = mailbox(&spelt.collect::<String>());
            memory.store(&other, &Ok(RecipientAnswer::Exists), now);
            for tag in ['+', '-'] {
                let other = mailbox(&format!("user{tag}{at}"));
                memory.store(&other, &Ok(RecipientAnswer::Exists), now);
            }
        }
        let yes = KnownAnswer::Known(Ok(RecipientAnswer::Exists));
        assert_eq!(memory.known(&known, now), yes);
        assert!(memory.counts(now).known <= TAGGED_MAX + 2);
        assert_eq!(memory.known(&mailbox("user-65535"), now), yes);
    }

    #[test]
    fn a_yes_counts_for_every_spelling_and_a_no_for_its_own() {
        let (mut memory, now) = memory();
        memory.store(&mailbox("user"), &Ok(RecipientAnswer::Exists), now);
        memory.store(&mailbox("nobody"), &Ok(no()), now);
        let yes = KnownAnswer::Known(Ok(RecipientAnswer::Exists));
        assert_eq!(memory.known(&mailbox("USER"), now), yes);
        assert_eq!(memory.known(&mailbox("\"u\\ser\""), now), yes);
        let unknown = memory.known(&mailbox("NOBODY"), now);
        assert_eq!(unknown, KnownAnswer::Unknown);
        let known = memory.known(&mailbox("nobody"), now);
        assert_eq!(known, KnownAnswer::Known(Ok(no())));
    }
}
