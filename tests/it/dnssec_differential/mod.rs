//! The resolver against Unbound: the same answers, genuine or tampered with, and never a laxer
//! verdict.
//!
//! `.ci/dnssec` sets up BIND with several dozen zones. Each conversation has a name server of its
//! own, which passes on BIND's answers after a plan: unchanged, by one of a few attacks, or
//! changed, dropped, replayed and crossed at random. How an answer is changed depends on the seed,
//! the name and the type alone; Gatepost and Unbound ask whatever they like in whatever order, and
//! see the same. Both begin with nothing but the root's key.
//!
//! Gatepost may be stricter than Unbound, never laxer. Nor may it say anything that is not true of
//! the zones: a signed zone has one truth, and whoever changes answers on the way can only make it
//! bogus. What is exactly true is no failure where Unbound refuses the answer over another
//! record; such cases are counted and bounded.
//!
//! ```sh
//! .ci/dnssec                        # all of it
//! DNSSEC_SEED=1234 .ci/dnssec       # one conversation, with everything that was said
//! DNSSEC_SEEDS=5000..9000 .ci/dnssec
//! ```

mod attack;
mod attacker;
mod conversation;
mod dice;
mod forgery;
mod mutation;
mod question;
mod resolvers;
mod serve;
mod stage;
mod verdict;
mod wire;
mod world;

use std::ops::RangeInclusive;

use attack::ATTACKS;
use conversation::{Conversation, Theatre};
use dice::Dice;
use question::{Kind, Question};
use serve::Script;

/// The seeds of a run, unless `DNSSEC_SEEDS` says otherwise.
const SEEDS: std::ops::Range<u64> = 0..3000;
/// Percent of the conversations that Unbound finds secure, and Gatepost does not, at most.
const STRICTER_MAX: usize = 5;
/// Percent of the conversations in which Gatepost says what is true and Unbound refuses it, at
/// most.
const TOLERANT_MAX: usize = 6;
/// Percent of the conversations that Unbound finds secure, and insecure, at least: a run in which
/// everything is bogus shows nothing.
const SECURE_MIN: usize = 15;
const INSECURE_MIN: usize = 5;

fn seeds() -> std::ops::Range<u64> {
    let number = |text: &str| text.parse::<u64>().expect("a number");
    match (std::env::var("DNSSEC_SEED"), std::env::var("DNSSEC_SEEDS")) {
        (Ok(seed), _) => number(&seed)..number(&seed) + 1,
        (_, Ok(seeds)) => {
            let (from, to) = seeds.split_once("..").expect("DNSSEC_SEEDS=FROM..TO");
            number(from)..number(to)
        }
        _ => SEEDS,
    }
}

/// The conversation of a seed.
fn random(theatre: &Theatre, seed: u64) -> Conversation {
    let mut dice = Dice::new(seed, b"question", 0);
    let question = dice
        .pick(theatre.questions())
        .expect("there are some")
        .clone();
    Conversation {
        question,
        script: Script::Random { seed },
    }
}

fn assert_share(what: &str, count: usize, of: usize, percent: RangeInclusive<usize>) {
    let share = (count * 100).div_ceil(of.max(1));
    assert!(
        percent.contains(&share),
        "{share} % are {what}; {percent:?} is wanted"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the name servers of .ci/dnssec"]
async fn genuine_answers_have_one_verdict() {
    if std::env::var("DNSSEC_SEED").is_ok() {
        return;
    }
    let theatre = Theatre::open().await;
    let conversations = theatre
        .questions()
        .iter()
        .zip(0..)
        .map(|(question, number)| Conversation {
            question: question.clone(),
            // As a recursive resolver answers, and as an authority does.
            script: Script::Genuine {
                whole: number % 2 == 0,
            },
        });
    let report = theatre.play(conversations.collect()).await;
    println!("genuine answers: {report}");
    report.assert_all_agree();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the name servers of .ci/dnssec"]
async fn no_attack_gets_through() {
    if std::env::var("DNSSEC_SEED").is_ok() {
        return;
    }
    let theatre = Theatre::open().await;
    let mut conversations = Vec::new();
    for zone in [
        "nsec.test",
        "nsec3.test",
        "child.nsec.test",
        "signed.optout.test",
        "child.high.test",
        "good.tld",
        "hash.tld",
        "rsa2048.test",
    ] {
        for (label, kind) in [
            ("mx", Kind::Tlsa(25)),
            ("", Kind::Mx),
            ("mx", Kind::Addresses),
            ("there.wild", Kind::Mx),
            ("nowhere", Kind::Mx),
        ] {
            let name = if label.is_empty() {
                zone.to_owned()
            } else {
                format!("{label}.{zone}")
            };
            for (number, attack) in (0..).zip(ATTACKS) {
                for variant in 0..2 {
                    let (victim, seed) = (wire::name(zone), number * 2 + variant);
                    let question = Question {
                        name: name.clone(),
                        kind,
                    };
                    conversations.push(Conversation {
                        question,
                        script: Script::Attack {
                            seed,
                            attack,
                            victim,
                        },
                    });
                }
            }
        }
    }
    let report = theatre.play(conversations).await;
    println!("attacks: {report}");
    report.assert_never_laxer();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the name servers of .ci/dnssec"]
async fn no_answer_that_was_tampered_with_is_believed_more_than_unbound_believes_it() {
    let theatre = Theatre::open().await;
    let report = theatre
        .play(seeds().map(|seed| random(&theatre, seed)).collect())
        .await;
    println!("random changes, seeds {:?}: {report}", seeds());
    if std::env::var("DNSSEC_SEED").is_ok() {
        println!("{}", report.everything());
    }
    report.assert_never_laxer();
    if seeds().count() >= 1000 {
        let (all, secure) = (report.count(), report.unbound("secure"));
        assert_share(
            "secure for Unbound alone",
            report.stricter(),
            secure,
            0..=STRICTER_MAX,
        );
        assert_share(
            "true, and refused by Unbound",
            report.tolerant(),
            all,
            0..=TOLERANT_MAX,
        );
        assert_share("secure for Unbound", secure, all, SECURE_MIN..=100);
        assert_share(
            "insecure for Unbound",
            report.unbound("insecure"),
            all,
            INSECURE_MIN..=100,
        );
    }
}
