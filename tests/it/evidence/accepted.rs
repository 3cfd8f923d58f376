//! Mail that comes in is on record too: once for each message, in the same chain, and before the
//! queue forgets it.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use gatepost::storage::evidence::{
    AcceptanceRecord, DemandOutcome, MailRecord, Period, RecordedAssurance, RecordedOutcome,
    records,
};

use gatepost::storage::spool::SqliteSpool;

use super::daemon::{
    PATIENCE, configure, evidence, is_whole, out, queued, start, stored_envelope, to,
};
use super::world::folder;
use crate::support::client::{Client, Verdict, send_all};
use crate::support::message::{Message, SENDER};
use crate::support::relay::program;
use crate::support::sink::Sink;
use crate::support::{Dice, within};

/// The fewest kills of the daemon while mail comes in.
const LIVES: usize = 4;

/// Every record of mail, in the order of the chain.
fn on_record(folder: &Path) -> Vec<MailRecord> {
    let mut all = Vec::new();
    let reading = records(&folder.join("evidence"), Period::ALL, |_, _, record| {
        all.push(record);
    });
    assert_eq!(reading.expect("readable").bad, 0);
    all
}

/// The messages that came in.
pub(crate) fn accepted(folder: &Path) -> Vec<AcceptanceRecord> {
    let of = |record| match record {
        MailRecord::Accepted(acceptance) => Some(*acceptance),
        MailRecord::Delivery(_) => None,
    };
    on_record(folder).into_iter().filter_map(of).collect()
}

fn send(address: SocketAddr, message: &Message) -> String {
    match Client::connect(address).expect("it listens").send(message) {
        Verdict::Accepted(id) => id,
        other => panic!("{other:?}"),
    }
}

/// Sends one message to two domains, which get it. Returns its queue id and the configuration.
fn one_message_was_delivered(folder: &Path) -> (String, PathBuf) {
    let sink = Sink::start();
    let file = configure(folder, "path = \"evidence\"", &to(&sink));
    let relay = start(&file);
    let id = send(
        relay.address,
        &Message::new("m", &["a.example", "b.example"], 500),
    );
    assert!(within(PATIENCE, || queued(folder) == Some(0)));
    assert!(
        relay
            .terminate()
            .status
            .is_some_and(|status| status.success())
    );
    is_whole(folder);
    (id, file)
}

#[test]
fn a_message_that_comes_in_is_on_record_once_before_its_deliveries() {
    let folder = folder();
    let (id, _) = one_message_was_delivered(folder.path());
    let all = on_record(folder.path());
    let [
        MailRecord::Accepted(one),
        MailRecord::Delivery(_),
        MailRecord::Delivery(_),
    ] = &all[..]
    else {
        panic!("one in, two out: {all:?}")
    };
    assert_eq!(
        (
            one.queue_id.as_str(),
            one.from.as_str(),
            one.domain.as_str()
        ),
        (&*id, SENDER, "sender.example")
    );
    assert_eq!(
        (&one.to[..], one.more_to),
        (&["m@a.example".to_owned(), "m@b.example".to_owned()][..], 0)
    );
    assert_eq!(one.message_id.as_deref(), Some("<m@sender.example>"));
    let by = &one.by;
    assert_eq!(
        (
            by.listener.as_str(),
            by.connector.as_str(),
            by.hello.as_deref()
        ),
        ("mx", "all", Some("client.example"))
    );
    assert!(
        by.client
            .as_deref()
            .is_some_and(|client| client.starts_with("127.0.0.1:"))
            && by.via.is_none()
    );
    assert_eq!(
        (by.session.level, by.standing, by.policy.tls.as_str()),
        (
            RecordedAssurance::Clear,
            DemandOutcome::Met,
            "opportunistic"
        )
    );
    assert!(
        by.session.no_tls.is_some() && by.configuration.len() == 64,
        "{by:?}"
    );
}

#[test]
fn a_message_that_came_in_is_listed_apart_from_its_deliveries() {
    let folder = folder();
    let (_, file) = one_message_was_delivered(folder.path());
    let list = out(&evidence(&file, &["list"]));
    let totals = "\n1 message accepted, 1 in the clear\n2 attempts: 2 delivered\n\
                  2 recipients, 2 in the clear; chain whole, head\n    sha256:";
    assert!(list.contains("  in  ") && list.contains(totals), "{list}");
    let list = out(&evidence(&file, &["list", "--direction", "in"]));
    assert!(
        list.contains("m@a.example and\n    1 more\n")
            && list.contains("\n1 message accepted, 1 in the clear; chain"),
        "{list}"
    );
    assert!(
        !list.contains("attempt") && !list.contains("recipient"),
        "{list}"
    );
    let list = out(&evidence(&file, &["list", "--direction", "out"]));
    assert!(
        !list.contains("  in  ") && !list.contains("accepted") && list.contains("\n2 attempts: "),
        "{list}"
    );
    let csv = out(&evidence(
        &file,
        &["list", "--csv", "--domain", "sender.example"],
    ));
    assert!(
        csv.lines().count() == 2 && csv.contains(",in,mx,client.example,"),
        "{csv}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&out(&evidence(&file, &["list", "--json"]))).expect("JSON");
    let kinds: Vec<_> = json
        .as_array()
        .expect("an array")
        .iter()
        .map(|record| record["kind"].clone())
        .collect();
    assert_eq!(kinds, ["accepted", "delivery", "delivery"]);
}

#[test]
fn the_summary_counts_what_came_in_apart_from_deliveries() {
    let folder = folder();
    let sink = Sink::start();
    let file = configure(folder.path(), "path = \"evidence\"", &to(&sink));
    let relay = start(&file);
    for name in ["one", "two", "three"] {
        send(relay.address, &Message::new(name, &["a.example"], 500));
    }
    assert!(within(PATIENCE, || queued(folder.path()) == Some(0)));
    drop(relay);
    let csv = out(&evidence(&file, &["summary", "--csv"]));
    assert_eq!(
        csv.lines().skip(1).collect::<Vec<_>>(),
        ["all,a.example,3,3,0,0,0,0,0,0,0,0,0,0,0,0"]
    );
    let csv = out(&evidence(&file, &["summary", "--csv", "--direction", "in"]));
    assert_eq!(
        csv.lines().skip(1).collect::<Vec<_>>(),
        ["all,mx,3,3,0,0,0,0,0"]
    );
    let json: serde_json::Value =
        serde_json::from_str(&out(&evidence(&file, &["summary", "--json"]))).expect("JSON");
    assert_eq!(
        (
            &json["accepted"][0]["messages"],
            &json["rows"][0]["delivered"]
        ),
        (&3.into(), &3.into())
    );
    let text = out(&evidence(&file, &["summary"]));
    assert!(text.contains("accepted messages since "), "{text}");
}

/// A message that nothing was tried for yet: its destination is known to be down.
#[test]
fn a_message_that_an_operator_removes_before_any_attempt_is_on_record_as_it_came_in() {
    let folder = folder();
    let connectors = "[[connector]]\nname = \"down\"\ndomains = [\"*\"]\n[connector.outbound]\nroute = [\"127.0.0.1:1\"]\ntls = \"off\"\n";
    let file = configure(folder.path(), "path = \"evidence\"", connectors);
    let text = fs::read_to_string(&file).expect("ours");
    fs::write(
        &file,
        text.replace("socket = \"\"", "socket = \"admin.sock\""),
    )
    .expect("ours");
    let mut relay = start(&file);
    let first = send(relay.address, &Message::new("first", &["a.example"], 500));
    relay.hears("delivery deferred");
    let second = send(relay.address, &Message::new("second", &["a.example"], 500));
    let ids = || {
        accepted(folder.path())
            .into_iter()
            .map(|one| one.queue_id)
            .collect::<Vec<_>>()
    };
    assert!(within(PATIENCE, || ids() == [first.clone()]), "{:?}", ids());
    let remove = || -> Output {
        let mut command = Command::new(program());
        command
            .args(["queue", "remove", "--yes", &second, "--config"])
            .arg(&file)
            .output()
            .expect("gatepost runs")
    };
    // It may only just have come in.
    assert!(
        within(PATIENCE, || remove().status.success()),
        "{:?}",
        remove()
    );
    let all = on_record(folder.path());
    let [.., MailRecord::Accepted(came), MailRecord::Delivery(went)] = &all[..] else {
        panic!("{all:?}")
    };
    assert_eq!(
        (&came.queue_id, &went.queue_id, went.outcome),
        (&second, &second, RecordedOutcome::Removed)
    );
    drop(relay);
    is_whole(folder.path());
}

/// Sends sixty messages to two domains; returns the queue ids of those that are accepted.
fn send_sixty(address: SocketAddr, name: &str) -> Vec<String> {
    let to = ["a.example", "b.example"];
    let message = |at| Message::new(&format!("{name}-{at}"), &to, 600);
    let messages: Vec<_> = (0..60).map(message).collect();
    send_all(address, &messages)
        .into_iter()
        .filter_map(|verdict| match verdict {
            Verdict::Accepted(id) => Some(id),
            Verdict::Refused(_) | Verdict::Lost => None,
        })
        .collect()
}

#[test]
fn kill_9_at_any_moment_leaves_no_accepted_message_without_its_record() {
    let folder = folder();
    let sink = Sink::start();
    let file = configure(folder.path(), "path = \"evidence\"", &to(&sink));
    let mut dice = Dice::new(11);
    let mut ids = BTreeMap::new();
    let mut kills = 0;
    // On a busy machine a life may end before much is accepted, and more lives are needed.
    while kills < LIVES || (ids.len() <= 20 && kills < 40) {
        let life = kills;
        let relay = start(&file);
        let address = relay.address;
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                std::thread::spawn(move || send_sixty(address, &format!("l{life}-s{sender}")))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(30 + dice.below(300)));
        relay
            .kill()
            .check()
            .unwrap_or_else(|fault| panic!("{fault}"));
        let accepted = senders
            .into_iter()
            .flat_map(|sender| sender.join().expect("no panic"));
        ids.extend(accepted.map(|id| (id, life)));
        kills += 1;
    }
    assert!(
        ids.len() > 20,
        "only {} messages were accepted: this proves nothing",
        ids.len()
    );
    let relay = start(&file);
    assert!(
        within(PATIENCE, || queued(folder.path()) == Some(0)),
        "{:?}",
        queued(folder.path())
    );
    assert!(
        relay
            .terminate()
            .status
            .is_some_and(|status| status.success())
    );
    is_whole(folder.path());
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for one in accepted(folder.path()) {
        *times.entry(one.queue_id).or_default() += 1;
    }
    let missing: Vec<_> = ids.keys().filter(|id| !times.contains_key(*id)).collect();
    assert!(
        missing.is_empty(),
        "accepted, and not on record: {missing:?}"
    );
    // Each kill between a record and the state that goes with it brings the record once more.
    for (id, times) in &times {
        let kills = kills - ids.get(id).copied().unwrap_or(0);
        assert!(
            *times <= 1 + kills,
            "{id} is on record {times} times, after {kills} kills"
        );
    }
    assert!(
        times.values().filter(|times| **times > 1).count() * 2 < times.len(),
        "more than half of them twice: {times:?}"
    );
}

#[test]
fn without_evidence_it_is_kept_with_the_message_in_short() {
    let folder = folder();
    let connectors = "[[connector]]\nname = \"down\"\ndomains = [\"*\"]\n[connector.outbound]\nroute = [\"127.0.0.1:1\"]\ntls = \"off\"\n";
    for (path, is_kept) in [("path = \"\"", false), ("path = \"evidence\"", true)] {
        let mut relay = start(&configure(folder.path(), path, connectors));
        // The second is not tried, and so not on record yet.
        send(relay.address, &Message::new("first", &["a.example"], 500));
        relay.hears("delivery deferred");
        let id = send(relay.address, &Message::new("second", &["a.example"], 500));
        let envelope = stored_envelope(folder.path(), &id);
        assert_eq!(envelope.contains("arrival"), is_kept, "{envelope}");
        assert_eq!(envelope.contains("\"received\""), !is_kept, "{envelope}");
        drop(relay);
    }
}

const DOWN: &str = "[[connector]]\nname = \"down\"\ndomains = [\"*\"]\n[connector.outbound]\nroute = [\"127.0.0.1:1\"]\ntls = \"off\"\n";

/// Leaves a message in the queue that nothing was tried for, as its destination is down.
fn untried(folder: &Path) -> String {
    let mut relay = start(&configure(folder, "path = \"evidence\"", DOWN));
    send(relay.address, &Message::new("first", &["a.example"], 500));
    relay.hears("delivery deferred");
    let id = send(relay.address, &Message::new("second", &["a.example"], 500));
    relay
        .kill()
        .check()
        .unwrap_or_else(|fault| panic!("{fault}"));
    settle(folder);
    id
}

/// Moves what a relay that was killed had in its log to the database.
fn settle(folder: &Path) {
    drop(SqliteSpool::open(&folder.join("spool")).expect("nobody uses it"));
}

#[test]
fn what_is_known_of_a_message_that_came_in_waits_while_no_evidence_is_kept() {
    let folder = folder();
    let id = untried(folder.path());
    let keeps = || {
        let envelope = stored_envelope(folder.path(), &id);
        (
            envelope.contains("\"attempts\":1"),
            envelope.contains("arrival"),
        )
    };
    assert_eq!(keeps(), (false, true));
    let relay = start(&configure(folder.path(), "path = \"\"", DOWN));
    assert!(
        within(PATIENCE, || keeps().0),
        "it is tried, and no evidence kept"
    );
    assert!(keeps().1);
    relay
        .kill()
        .check()
        .unwrap_or_else(|fault| panic!("{fault}"));
    assert!(accepted(folder.path()).iter().all(|one| one.queue_id != id));

    // Evidence is kept again, and the message is tried again.
    let sink = Sink::start();
    let file = configure(folder.path(), "path = \"evidence\"", &to(&sink));
    let text = fs::read_to_string(&file).expect("ours");
    fs::write(&file, text.replace("retry = [\"1h\"]", "retry = [\"1s\"]")).expect("ours");
    let relay = start(&file);
    assert!(within(PATIENCE, || queued(folder.path()) == Some(0)));
    drop(relay);
    assert_eq!(
        accepted(folder.path())
            .iter()
            .filter(|one| one.queue_id == id)
            .count(),
        1
    );
    is_whole(folder.path());
}

/// Nothing was tried for it, and nothing can be.
#[test]
fn a_message_that_is_set_aside_before_any_attempt_is_on_record_as_it_came_in() {
    let folder = folder();
    let id = untried(folder.path());
    let database =
        rusqlite::Connection::open(folder.path().join("spool/queue.db")).expect("a database");
    let sql = "UPDATE body SET data = x'00' WHERE id = (SELECT id FROM queue WHERE name = ?1)";
    assert_eq!(database.execute(sql, [&id]).expect("a row"), 1);
    drop(database);
    let relay = start(&configure(folder.path(), "path = \"evidence\"", DOWN));
    let aside = folder.path().join(format!("spool/aside/{id}.txt"));
    assert!(within(PATIENCE, || aside.is_file()));
    let of_it = || {
        let mut all = on_record(folder.path());
        all.retain(|record| match record {
            MailRecord::Accepted(acceptance) => acceptance.queue_id == id,
            MailRecord::Delivery(delivery) => delivery.queue_id == id,
        });
        all
    };
    assert!(within(PATIENCE, || of_it().len() == 2), "{:?}", of_it());
    relay
        .kill()
        .check()
        .unwrap_or_else(|fault| panic!("{fault}"));
    let all = of_it();
    let [MailRecord::Accepted(_), MailRecord::Delivery(went)] = &all[..] else {
        panic!("{all:?}")
    };
    assert_eq!(
        (went.outcome, went.status.as_str()),
        (RecordedOutcome::Bounced, "5.3.0")
    );
    is_whole(folder.path());
}

/// It failed while no evidence was kept, and only the report to the postmaster remains to be sent.
#[test]
fn a_message_that_owes_a_report_alone_is_on_record_before_it_is_forgotten() {
    let folder = folder();
    let down = |digest: &str, evidence: &str| {
        let file = configure(folder.path(), evidence, DOWN);
        let text = fs::read_to_string(&file).expect("ours");
        let queue = format!("retry = [\"1h\"]\nexpire = \"2h\"\npostmaster_digest = \"{digest}\"");
        fs::write(&file, text.replace("retry = [\"1h\"]", &queue)).expect("ours");
        start(&file)
    };
    let id = untried(folder.path());
    // It has no sender, and failed while no evidence was kept.
    let sound = |change: &dyn Fn(&mut serde_json::Value)| {
        settle(folder.path());
        let database =
            rusqlite::Connection::open(folder.path().join("spool/queue.db")).expect("a database");
        let of = "SELECT id, envelope FROM queue WHERE name = ?1";
        let (row, text): (i64, String) = database
            .query_row(of, [&id], |row| Ok((row.get(0)?, row.get(1)?)))
            .expect("it waits");
        let mut envelope = serde_json::from_str(&text).expect("JSON");
        change(&mut envelope);
        let text = envelope.to_string();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&row.to_le_bytes());
        crc.update(&(text.len() as u64).to_le_bytes());
        crc.update(text.as_bytes());
        let sql = "UPDATE message SET envelope = ?2, envelope_crc = ?3 WHERE id = ?1";
        let changed = database.execute(sql, rusqlite::params![row, text, crc.finalize()]);
        assert_eq!(changed.expect("a row"), 1);
    };
    sound(&|envelope| {
        envelope["reverse_path"] = "".into();
        envelope["recipients"][0]["state"] = "failed".into();
        envelope["recipients"][0]["owed"] =
            serde_json::json!({"at": "2026-01-01T00:00:00Z", "status": "5.1.1", "text": "nobody"});
    });
    let mut relay = down("1m", "path = \"evidence\"");
    relay.hears("digest of failed mail queued for the postmaster");
    let is_there = || accepted(folder.path()).iter().any(|one| one.queue_id == id);
    assert!(within(PATIENCE, is_there));
    drop(relay);
    is_whole(folder.path());
}
