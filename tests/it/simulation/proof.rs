//! The judge is judged: for each promise, a history in which it is broken, and which must be found
//! out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gatepost::storage::evidence::DeliveryRecord;

use super::ledger::{Answer, Arrival, Named, Reported, Seen, Session, Tls};
use super::seed::Seed;
use super::verdict::{Left, Life, Played, Sent};
use super::world::{Health, Policy, Shown, World};
use crate::support::client::Verdict;

const TO: &str = "m1@d0.example";
const EXPIRE: Duration = Duration::from_secs(25);

/// One message, which was delivered as its policy wants. The world has one destination, which is
/// healthy and wants a verified name.
fn kept() -> Played {
    let mut world = World::new(Seed(1), 1);
    world.destinations[0].policy = Policy::Name;
    world.sites[0].health = Health::Healthy;
    let began = Instant::now()
        .checked_sub(EXPIRE * 2)
        .expect("the machine has run for a while");
    let tls = Tls {
        shown: Shown::Good,
        version: "TLSv1.3".to_owned(),
        cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
        key: "sha256:abc".to_owned(),
    };
    let session = Arc::new(Session {
        site: 0,
        connection: 0,
        life: "life0.example".to_owned(),
        tls: Some(tls),
    });
    let (heard, at) = (Arc::clone(&session), began + Duration::from_millis(20));
    let arrival = Arrival {
        session,
        recipient: TO.to_owned(),
        at,
        answer: Answer::Taken(at + Duration::from_millis(1)),
        content: Ok("m1".to_owned()),
    };
    let verdict = Some(Verdict::Accepted("id".to_owned()));
    let sent = Sent {
        name: "m1".to_owned(),
        recipients: vec![TO.to_owned()],
        verdict,
        began,
        at: began,
    };
    let record = record(&world);
    Played {
        world,
        expire: EXPIRE,
        sent: vec![sent],
        seen: Seen {
            named: vec![Named {
                session: heard,
                recipient: Some(TO.to_owned()),
                at,
            }],
            arrivals: vec![arrival],
            reports: Vec::new(),
        },
        lives: vec![Life {
            name: "life0.example".to_owned(),
            ended: Some(began + EXPIRE),
            killed: true,
        }],
        pauses: Vec::new(),
        left: Vec::new(),
        drained: true,
        records: vec![record],
    }
}

fn record(world: &World) -> DeliveryRecord {
    let record = serde_json::json!({
        "queue_id": "id", "message_id": null, "from": "alice@sender.example", "to": TO, "domain": "d0.example",
        "attempt": 1, "connector": "d0.example", "configuration": "", "policy": null, "exception": null,
        "host": world.sites[0].name, "address": format!("{}:25", world.sites[0].address),
        "session": {
            "level": "verified", "no_tls": null,
            "tls": {
                "version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "key_exchange": null,
                "authentication": "verified", "matched_name": null,
                "certificate": { "spki": "sha256:abc", "issuer": "", "not_after": "2999-01-01T00:00:00Z" },
            },
        },
        "unmet": null, "downgraded_from": null, "standing": "met", "outcome": "delivered", "status": "2.0.0",
        "reply": "250 taken", "reason": null,
    });
    serde_json::from_value(record).expect("a record")
}

/// Returns the faults that are found, except that so small a world proves nothing.
fn found(change: impl FnOnce(&mut Played)) -> Vec<String> {
    let mut played = kept();
    change(&mut played);
    played
        .faults()
        .into_iter()
        .filter(|fault| !fault.starts_with("VACUOUS"))
        .collect()
}

fn again(played: &mut Played) {
    let mut again = played.seen.arrivals[0].clone();
    again.at += Duration::from_millis(500);
    again.answer = Answer::Taken(again.at);
    played.seen.arrivals.push(again);
    let record = played.records[0].clone();
    played.records.push(record);
}

fn reported(played: &mut Played, after: Duration) {
    let at = played.sent[0].at + after;
    let (action, status) = ("failed".to_owned(), "5.0.0".to_owned());
    played.seen.reports.push(Reported {
        recipient: TO.to_owned(),
        action,
        status,
        id: "one".to_owned(),
        at,
    });
}

fn nothing_arrived(played: &mut Played) {
    played.seen.arrivals.clear();
    played.records.clear();
}

fn shows(played: &mut Played, shown: Shown) {
    let mut session = (*played.seen.named[0].session).clone();
    session.tls.as_mut().expect("TLS").shown = shown;
    played.seen.named[0].session = Arc::new(session);
}

#[test]
fn a_promise_that_is_kept_is_no_fault() {
    assert_eq!(found(|_| ()), [""; 0]);
}

/// Lost answers, and kills between the answer and the record, are what a message may come twice
/// for.
#[test]
fn a_copy_with_an_excuse_is_no_fault() {
    let lost = |played: &mut Played| {
        again(played);
        played.seen.arrivals[0].answer = Answer::Lost;
        played.records.pop();
    };
    assert_eq!(found(lost), [""; 0]);
    let killed = |played: &mut Played| {
        again(played);
        played.records.pop();
        played.lives[0].ended = Some(played.seen.arrivals[0].at + Duration::from_millis(300));
        let mut session = (*played.seen.arrivals[1].session).clone();
        "life1.example".clone_into(&mut session.life);
        played.seen.arrivals[1].session = Arc::new(session);
        played.lives.push(Life {
            name: "life1.example".to_owned(),
            ended: None,
            killed: false,
        });
    };
    assert_eq!(found(killed), [""; 0]);
}

/// A promise, and a change to what was played that breaks it.
type Broken = (&'static str, fn(&mut Played));

const BROKEN: [Broken; 18] = [
    ("LOST", nothing_arrived),
    ("STUCK", |played| {
        nothing_arrived(played);
        played.drained = false;
        played.left.push(Left {
            recipient: TO.to_owned(),
            held: false,
            reason: String::new(),
        });
    }),
    ("TWICE", again),
    ("TWICE", |played| reported(played, EXPIRE)),
    ("TWICE", |played| {
        played.left.push(Left {
            recipient: TO.to_owned(),
            held: true,
            reason: String::new(),
        });
    }),
    ("TWICE", |played| {
        nothing_arrived(played);
        reported(played, EXPIRE);
        reported(played, EXPIRE);
    }),
    ("TWICE", |played| {
        nothing_arrived(played);
        reported(played, EXPIRE);
        reported(played, EXPIRE);
        "another".clone_into(&mut played.seen.reports[1].id);
    }),
    ("WEAK", |played| shows(played, Shown::WrongName)),
    ("WEAK", |played| {
        shows(played, Shown::SelfSigned);
        played.seen.named[0].recipient = None;
    }),
    ("WEAK", |played| {
        played.world.destinations[0].policy = Policy::Remembered;
        let mut session = (*played.seen.named[0].session).clone();
        session.tls = None;
        played.seen.named[0].session = Arc::new(session);
        played.seen.named[0].at += EXPIRE;
    }),
    ("RECORD", |played| played.records.clear()),
    ("RECORD", |played| {
        let record = played.records[0].clone();
        played.records.push(record);
    }),
    ("RECORD", |played| {
        played.records[0].session.as_mut().expect("a session").tls = None;
    }),
    ("RECORD", |played| {
        played.records[0].address = Some("127.0.0.1:25".to_owned());
    }),
    ("LATE", |played| played.seen.arrivals[0].at += EXPIRE),
    ("BOUNCED", |played| {
        nothing_arrived(played);
        reported(played, Duration::from_secs(1));
    }),
    ("INVENTED", |played| {
        played.sent[0].verdict = Some(Verdict::Refused("452 4.3.1".to_owned()));
    }),
    ("CHANGED", |played| {
        played.seen.arrivals[0].content = Err("an octet is missing".to_owned());
    }),
];

#[test]
fn each_promise_that_is_broken_is_found_out() {
    for (at, (word, change)) in BROKEN.into_iter().enumerate() {
        let faults = found(change);
        assert!(
            faults.iter().any(|fault| fault.starts_with(word)),
            "{at}: {word} is not among {faults:?}"
        );
    }
}
