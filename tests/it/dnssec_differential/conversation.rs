//! Conversations, their outcome, and what all of them come to.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::question::{self, Question};
use super::resolvers::{Gatepost, Unbound};
use super::serve::{Plan, Script, Served};
use super::verdict::{Ours, Verdict, falsehood, is_true, laxity, together};
use super::wire::{Name, kind, text};
use super::world::{World, zones};

/// Conversations at the same time.
const AT_ONCE: usize = 6;
/// Processes with Unbound's library.
const HELPERS: usize = 2;
/// A lookup that takes longer has no end: its own limit is 30 seconds.
const ENDLESS: Duration = Duration::from_secs(40);
/// Failures that are printed, of each kind.
const SHOWN: usize = 4;

/// One lookup, and what happens to the answers.
#[derive(Debug, Clone)]
pub(crate) struct Conversation {
    pub(crate) question: Question,
    pub(crate) script: Script,
}

/// Everything that conversations need.
#[derive(Clone)]
pub(crate) struct Theatre(Arc<Inner>);

struct Inner {
    world: Arc<World>,
    questions: Vec<Question>,
    gatepost: Gatepost,
    unbound: Unbound,
    truths: Mutex<HashMap<Question, Arc<Truth>>>,
}

/// The verdicts on genuine answers.
struct Truth {
    verdicts: Vec<Verdict>,
    first: Option<bool>,
    /// True if the zone of the name is provably unsigned: an alias there may lead anywhere.
    is_unsigned: bool,
}

/// The end of a conversation.
struct Outcome {
    conversation: Conversation,
    ours: Ours,
    theirs: Verdict,
    truth: Verdict,
    laxities: Vec<String>,
    /// Unbound refuses, over another record, what is exactly as in the genuine zones.
    is_tolerant: bool,
    /// Each answer and the reason for it; with all records if they are asked for.
    log: Vec<String>,
}

impl Theatre {
    pub(crate) async fn open() -> Self {
        let folder =
            std::env::var("DNSSEC_ZONES").expect("DNSSEC_ZONES is not set: run .ci/dnssec");
        let folder = std::path::Path::new(&folder);
        let questions = question::all(&zones(folder));
        let wire: Vec<(Name, u16)> = questions.iter().flat_map(Question::wire).collect();
        Self(Arc::new(Inner {
            world: Arc::new(World::load(&wire).await),
            questions,
            gatepost: Gatepost::new(folder),
            unbound: Unbound::start(folder, HELPERS),
            truths: Mutex::default(),
        }))
    }

    pub(crate) fn questions(&self) -> &[Question] {
        &self.0.questions
    }

    /// Plays conversations, a few at a time.
    pub(crate) async fn play(&self, conversations: Vec<Conversation>) -> Report {
        let alone = conversations.len() == 1;
        let (places, mut tasks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
        for conversation in conversations {
            let place = Arc::clone(&places)
                .acquire_owned()
                .await
                .expect("never closed");
            let theatre = self.clone();
            tasks.spawn(async move {
                let outcome = theatre.outcome(conversation, alone).await;
                drop(place);
                outcome
            });
        }
        Report(tasks.join_all().await)
    }

    async fn outcome(&self, conversation: Conversation, in_full: bool) -> Outcome {
        let Conversation { question, script } = &conversation;
        let plan = Plan::new(&self.0.world, script.clone(), question.wire());
        let (ours, theirs) = self.ask_both(&plan, question).await;
        let truth = match script {
            Script::Genuine { .. } => Arc::new(Truth {
                verdicts: theirs.clone(),
                first: ours.first,
                is_unsigned: false,
            }),
            Script::Random { .. } | Script::Attack { .. } => self.truth(question).await,
        };
        let theirs = together(&ours.verdict, question.kind, theirs);
        let true_verdict = together(&ours.verdict, question.kind, truth.verdicts.clone());
        let laxity = laxity(&ours.verdict, &theirs);
        let is_of_unsigned = truth.is_unsigned && matches!(ours.verdict, Verdict::Insecure(_));
        let is_tolerant =
            laxity.is_some() && (is_of_unsigned || is_true(&ours.verdict, &true_verdict));
        let laxity = laxity.filter(|_| !is_tolerant);
        let mut laxities: Vec<String> = laxity
            .map(|laxity| format!("than Unbound: {laxity}"))
            .into_iter()
            .collect();
        // Records that the attacker signs in his own zone are true, and so are his delegations.
        let of_attacker = question.wire().iter().any(|(name, _)| {
            crate::dnssec_differential::wire::is_in(name, &self.0.world.attacker.zone)
        });
        if of_attacker {
            laxities.retain(|_| ours.verdict == Verdict::Endless);
        } else if let Some(falsehood) =
            falsehood(&ours, &true_verdict, truth.first, truth.is_unsigned)
        {
            laxities.push(format!("than the truth: {falsehood}"));
        }
        let log = plan.log.lock().expect("no panic");
        let log = log
            .iter()
            .filter(|(_, (done, _))| in_full || (!done.is_empty() && !laxities.is_empty()))
            .map(|((name, kind), (done, message))| {
                let record = if in_full {
                    message.in_words()
                } else {
                    String::new()
                };
                format!("{} {kind}: {} {record}", text(name), done.join(", "))
            })
            .collect();
        Outcome {
            ours,
            theirs,
            truth: true_verdict,
            laxities,
            is_tolerant,
            log,
            conversation,
        }
    }

    async fn ask_both(&self, plan: &Arc<Plan>, question: &Question) -> (Ours, Vec<Verdict>) {
        let served = Served::start(plan).await;
        let ours = self.ask_gatepost(served.address, question).await;
        let (theatre, wire, address) = (self.clone(), question.wire(), served.address);
        let theirs = tokio::task::spawn_blocking(move || {
            wire.iter()
                .map(|(name, kind)| theatre.0.unbound.ask(address, name, *kind))
                .collect()
        });
        (ours, theirs.await.expect("no panic"))
    }

    /// Asks Gatepost in a thread of its own: a lookup that never ends must not end the run.
    async fn ask_gatepost(&self, server: SocketAddr, question: &Question) -> Ours {
        let (theatre, question, (tell, told)) = (
            self.clone(),
            question.clone(),
            tokio::sync::oneshot::channel(),
        );
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let _ = tell.send(runtime.block_on(theatre.0.gatepost.ask(server, &question)));
        });
        match tokio::time::timeout(ENDLESS, told).await {
            Ok(ours) => ours.expect("no panic"),
            Err(_) => Ours {
                verdict: Verdict::Endless,
                first: None,
                holds: Duration::ZERO,
            },
        }
    }

    async fn truth(&self, question: &Question) -> Arc<Truth> {
        if let Some(known) = self.0.truths.lock().expect("no panic").get(question) {
            return Arc::clone(known);
        }
        let plan = Plan::new(
            &self.0.world,
            Script::Genuine { whole: true },
            question.wire(),
        );
        let (ours, verdicts) = self.ask_both(&plan, question).await;
        let apex = self.0.world.zone_of(&question.wire()[0].0).clone();
        let served = Served::start(&plan).await;
        let theatre = self.clone();
        let of_zone = tokio::task::spawn_blocking(move || {
            theatre.0.unbound.ask(served.address, &apex, kind::SOA)
        });
        let is_unsigned = matches!(of_zone.await.expect("no panic"), Verdict::Insecure(_));
        let truth = Arc::new(Truth {
            verdicts,
            first: ours.first,
            is_unsigned,
        });
        self.0
            .truths
            .lock()
            .expect("no panic")
            .insert(question.clone(), Arc::clone(&truth));
        truth
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.conversation.script {
            Script::Genuine { whole } => write!(f, "aliases followed: {whole} ")?,
            Script::Random { seed } => write!(f, "DNSSEC_SEED={seed} ")?,
            Script::Attack {
                seed,
                attack,
                victim,
            } => write!(f, "{attack:?} on {}, variant {seed} ", text(victim))?,
        }
        writeln!(
            f,
            "{}: {}",
            self.conversation.question,
            self.laxities.join("; ")
        )?;
        writeln!(
            f,
            "  Gatepost: {:?}, first secure: {:?}, for {:?}",
            self.ours.verdict, self.ours.first, self.ours.holds
        )?;
        writeln!(f, "  Unbound:  {:?}", self.theirs)?;
        writeln!(f, "  true:     {:?}", self.truth)?;
        for line in &self.log {
            writeln!(f, "    {line}")?;
        }
        Ok(())
    }
}

/// The conversations that have ended.
pub(crate) struct Report(Vec<Outcome>);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} conversations", self.0.len())?;
        let mut pairs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for outcome in &self.0 {
            *pairs
                .entry((outcome.ours.verdict.word(), outcome.theirs.word()))
                .or_default() += 1;
            for laxity in &outcome.laxities {
                *kinds.entry(laxity).or_default() += 1;
            }
        }
        for ((ours, theirs), count) in pairs {
            writeln!(f, "  {count:6}  Gatepost {ours}, Unbound {theirs}")?;
        }
        for (kind, count) in kinds {
            writeln!(f, "  {count:6}  laxer {kind}")?;
        }
        writeln!(
            f,
            "  {:6}  true all the same: Unbound refuses over another record",
            self.tolerant()
        )?;
        write!(
            f,
            "  {:6}  stricter: Unbound secure, Gatepost without an answer",
            self.stricter()
        )
    }
}

impl Report {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Conversations in which Unbound says secure, and Gatepost nothing.
    pub(crate) fn stricter(&self) -> usize {
        let stricter = |outcome: &&Outcome| {
            matches!(outcome.theirs, Verdict::Secure(_))
                && !matches!(outcome.ours.verdict, Verdict::Secure(_))
        };
        self.0.iter().filter(stricter).count()
    }

    /// Conversations in which Gatepost believes what is true, and Unbound does not.
    pub(crate) fn tolerant(&self) -> usize {
        self.0.iter().filter(|outcome| outcome.is_tolerant).count()
    }

    /// Conversations with a verdict of Unbound's.
    pub(crate) fn unbound(&self, word: &str) -> usize {
        self.0
            .iter()
            .filter(|outcome| outcome.theirs.word() == word)
            .count()
    }

    pub(crate) fn everything(&self) -> String {
        self.0.iter().map(ToString::to_string).collect()
    }

    pub(crate) fn assert_never_laxer(&self) {
        let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
        let lax: Vec<&Outcome> = self
            .0
            .iter()
            .filter(|outcome| !outcome.laxities.is_empty())
            .collect();
        let words = lax.iter().filter(|outcome| {
            let count = shown.entry(&outcome.laxities[0]).or_default();
            *count += 1;
            *count <= SHOWN
        });
        let words: String = words.map(ToString::to_string).collect();
        assert!(
            lax.is_empty(),
            "{} conversations in which Gatepost is laxer; of each kind a few:\n{words}",
            lax.len()
        );
    }

    pub(crate) fn assert_all_agree(&self) {
        let differ: Vec<&Outcome> = self
            .0
            .iter()
            .filter(|outcome| {
                outcome.ours.verdict.word() != outcome.theirs.word() || !outcome.laxities.is_empty()
            })
            .collect();
        let words: String = differ
            .iter()
            .take(10 * SHOWN)
            .map(ToString::to_string)
            .collect();
        assert!(
            differ.is_empty(),
            "{} conversations without one verdict:\n{words}",
            differ.len()
        );
    }
}
