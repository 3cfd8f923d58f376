//! Answers of a hostile name server, checked by the DNSSEC validator. The attacker has every
//! genuine record of a signed world and can change them, but has none of the keys. The attacker
//! also has a signed zone.

mod attacker;
mod forgery;

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use gatepost::smtp::address::Domain;
use gatepost::demo::zones::{Kind, Zones, full_name};
use gatepost::net::dns::{AnswerRecords, Dns, DnsAnswer, LookupError, Security};
use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query};
use hickory_resolver::proto::rr::{Name, RecordType};

use forgery::Forgery;

/// The maximum number of queries of one lookup: the budget, for two tries with two address
/// families.
const QUESTIONS_MAX: usize = 410;

const GOOD: &str = "good.test MX 10 mx.good.test\nmx.good.test A 192.0.2.1\nmx.good.test AAAA 2001:db8::1\n\
    _25._tcp.mx.good.test TLSA 3 1 1 abcd\nalias.good.test CNAME mx.good.test\n\
    out.good.test CNAME mx.plain.test\n_mta-sts.good.test TXT v=STSv1;id=1\n\
    *.wild.good.test A 192.0.2.7\nfour.wild.good.test A 192.0.2.4\nzz.good.test A 192.0.2.26\n";
const PLAIN: &str = "plain.test MX 10 mx.plain.test\nmx.plain.test A 192.0.2.66\n";
const EVIL: &str = "evil.test MX 10 zz.evil.test\nzz.evil.test A 192.0.2.67\n_25._tcp.mx.evil.test TLSA 3 1 1 6666\n";

/// The genuine zones, and the attacker's zones of the same names under another root.
struct World {
    genuine: Zones,
    forged: Zones,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let zones = || {
        let delegation = attacker::delegation();
        let written = [
            ("test", Kind::Signed, delegation.as_str()),
            ("good.test", Kind::Signed, GOOD),
            ("plain.test", Kind::Unsigned, PLAIN),
            ("evil.test", Kind::Signed, EVIL),
        ];
        Zones::new(&written).expect("zones")
    };
    World { genuine: zones(), forged: zones() }
});

/// The genuine answer to every question.
static TRUTH: LazyLock<Vec<Outcome>> = LazyLock::new(|| {
    let truth: Vec<Outcome> = (0..QUESTIONS.len()).map(|at| ask(at, Arc::new(Vec::new())).0).collect();
    assert!(truth.iter().take(GENUINE).all(Result::is_ok), "the genuine zones have an answer: {truth:?}");
    truth
});

/// A query that mail delivery makes.
#[derive(Debug, Clone, Copy)]
enum Question {
    Mx(&'static str),
    Addresses(&'static str),
    Txt(&'static str),
    Tlsa(&'static str),
}

/// The number of questions about genuine zones; the others are about the attacker's own.
const GENUINE: usize = 16;
const QUESTIONS: [Question; 21] = [
    Question::Mx("good.test"),
    Question::Mx("mx.good.test"),
    Question::Mx("nobody.good.test"),
    Question::Mx("deep.nobody.good.test"),
    Question::Mx("plain.test"),
    Question::Addresses("mx.good.test"),
    Question::Addresses("alias.good.test"),
    Question::Addresses("out.good.test"),
    Question::Addresses("any.wild.good.test"),
    Question::Addresses("four.wild.good.test"),
    Question::Addresses("mx.plain.test"),
    Question::Txt("_mta-sts.good.test"),
    Question::Txt("_mta-sts.plain.test"),
    Question::Tlsa("mx.good.test"),
    Question::Tlsa("zz.good.test"),
    Question::Tlsa("alias.good.test"),
    Question::Mx("owned.test"),
    Question::Addresses("mx.owned.test"),
    Question::Tlsa("mx.owned.test"),
    Question::Mx("a.b.owned.test"),
    Question::Mx("under.mx.owned.test"),
];

/// An answer in a comparable form.
type Outcome = Result<Told, LookupError>;

/// The answer about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    /// The records; `None` if the name does not exist.
    records: Option<Vec<String>>,
    security: Security,
    first: Security,
    name: String,
}

impl Told {
    fn of<T: Debug>(answer: &DnsAnswer<T>) -> Self {
        let records = match &answer.found {
            AnswerRecords::NoDomain => None,
            AnswerRecords::NoData => Some(Vec::new()),
            AnswerRecords::Records(records) => {
                let mut records: Vec<_> = records.iter().map(|record| format!("{record:?}")).collect();
                records.sort();
                records.dedup();
                Some(records)
            }
        };
        Self { records, security: answer.security, first: answer.first_link, name: answer.name.clone() }
    }
}

pub(crate) fn run(input: &[u8]) {
    let Some((which, rest)) = input.split_first() else { return };
    let at = usize::from(*which) % QUESTIONS.len();
    let (outcome, questions) = ask(at, Arc::new(forgery::read(rest)));
    assert!(questions <= QUESTIONS_MAX, "{questions} questions for one lookup");
    let Ok(told) = outcome else { return };
    // In the attacker's own zone any answer is permitted.
    let Ok(truth) = &TRUTH[at] else { return };
    let question = QUESTIONS[at];
    if truth.first.is_secure() {
        assert!(told.first.is_secure(), "{question:?}: a signed name became insecure: {told:?}");
    }
    if truth.security.is_secure() {
        assert!(told.security.is_secure(), "{question:?}: a signed zone became insecure: {told:?}");
    }
    if told.security.is_secure() {
        assert!(truth.security.is_secure(), "{question:?}: an unsigned zone became secure: {told:?}");
        check_records(question, &told, truth);
        assert_eq!(told.name, truth.name, "{question:?}: leads elsewhere");
    }
}

/// Checks that a secure answer is genuine; one of the two address families may be missing.
fn check_records(question: Question, told: &Told, truth: &Told) {
    let is_part = match (question, &told.records, &truth.records) {
        (Question::Addresses(_), Some(told), Some(truth)) if !told.is_empty() => {
            told.iter().all(|record| truth.contains(record))
        }
        (_, told, truth) => told == truth,
    };
    assert!(is_part, "{question:?}: {told:?} is not {truth:?}");
}

/// Asks one question of a resolver with an empty cache; returns the answer and the number of
/// queries at the name server.
fn ask(at: usize, forgeries: Arc<Vec<Forgery>>) -> (Outcome, usize) {
    let heard = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&heard);
    let script = move |name: &Name, kind: RecordType| {
        let number = counter.fetch_add(1, Ordering::Relaxed);
        forgery::reply(&forgeries, number, name, kind)
    };
    let dns = Dns::fuzzed(&WORLD.genuine.anchor_dnskey(), Arc::new(script)).expect("a resolver");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let domain = |name: &str| Domain::parse(name).expect("a domain");
    let outcome = runtime.block_on(async {
        match QUESTIONS[at] {
            Question::Mx(name) => dns.mx(&domain(name)).await.map(|answer| Told::of(&answer)),
            Question::Addresses(name) => dns.addresses(&domain(name)).await.map(|answer| Told::of(&answer)),
            Question::Txt(name) => dns.txt(name).await.map(|answer| Told::of(&answer)),
            Question::Tlsa(name) => dns.tlsa(25, &domain(name)).await.map(|answer| Told::of(&answer)),
        }
    });
    (outcome, heard.load(Ordering::Relaxed))
}

/// Returns the reply of a zone's server to a query.
fn genuine(zones: &Zones, name: &Name, kind: RecordType) -> Message {
    let mut reply = Message::new(0, MessageType::Response, OpCode::Query);
    let query = Query::query(name.clone(), kind);
    reply.queries.push(query.clone());
    let owned = full_name(attacker::ZONE).expect("a name");
    if owned.zone_of(name) && (*name != owned || kind != RecordType::DS) {
        if *name == owned && kind == RecordType::DNSKEY {
            reply.answers = attacker::keys();
        }
        return reply;
    }
    // Only a name that is too long for a wildcard beside it has no reply.
    let _ = zones.answer(&mut reply, &query, true, false);
    reply
}
