//! The schedule, and what a restart makes of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gatepost::relay::outbound::{DeliveryObserver, RecipientEnding, RecipientEvent};
use gatepost::smtp::envelope::{FailureHistory, RecipientState};
use jiff::Timestamp;

use crate::support::counting_sink::{Sink, fill};
use crate::support::in_process::{configured, connector, peer, queue, run, until, willing};
use crate::support::session::Client;

/// An outcome of a recipient.
struct Tried {
    local_part: String,
    at: Instant,
    /// The time of the next attempt, if one follows.
    due: Option<Instant>,
}

type Log = Arc<Mutex<Vec<Tried>>>;

fn logging() -> (Log, Arc<dyn DeliveryObserver>) {
    let log = Log::default();
    let writing = Arc::clone(&log);
    let observer = move |events: &[RecipientEvent<'_>]| {
        let at = Instant::now();
        let tried = events.iter().map(|event| Tried {
            local_part: event.mailbox.local_part().to_owned(),
            at,
            due: match event.ending {
                RecipientEnding::Deferred { due, .. } => Some(due),
                _ => None,
            },
        });
        writing.lock().expect("no panic").extend(tried);
    };
    (log, Arc::new(observer))
}

fn tried(log: &Log) -> Vec<String> {
    log.lock()
        .expect("no panic")
        .iter()
        .map(|tried| tried.local_part.clone())
        .collect()
}

#[tokio::test]
async fn the_schedule_is_kept_and_its_last_step_repeats() {
    let home = willing().await;
    let slow = peer(&[], &[("RCPT", "451 4.2.1 later")]).await;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let before = "[queue]\nretry = [\"100ms\", \"400ms\"]\nexpire = \"1h\"";
    let config = configured(
        folder.path(),
        home.address,
        before,
        &[connector("slow.example", slow.address, "")],
    );
    let (log, observer) = logging();
    let (relay, mut running) = run(config, observer).await;
    let began = Instant::now();
    Client::connect(relay)
        .await
        .sends_message("b@slow.example")
        .await;
    until("it was tried four times", || {
        (tried(&log).len() >= 4).then_some(())
    })
    .await;
    running.stop();
    running.ended().await.expect("an orderly end");
    let log = log.lock().expect("no panic");
    let mut due = began;
    // A busy machine may be late by any time.
    for (tried, step) in log.iter().zip([100, 400, 400]) {
        assert!(tried.at >= due, "before the step of {step} ms");
        let next = tried.due.expect("another attempt follows");
        assert!(next >= due + Duration::from_millis(step), "{step} ms");
        due = next;
    }
}

/// A last attempt checks again everything that may be out of date, so it must know that it is one.
#[tokio::test]
async fn an_attempt_knows_whether_it_may_be_the_last() {
    for (expire, may_be_last) in [("1h", false), ("5m", true)] {
        let home = willing().await;
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let before =
            format!("[queue]\nretry = [\"1m\"]\nexpire = \"{expire}\"\nwarn_after = \"never\"");
        let config = configured(folder.path(), home.address, &before, &[]);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noting = Arc::clone(&seen);
        let observer = move |events: &[RecipientEvent<'_>]| {
            noting
                .lock()
                .expect("no panic")
                .push(events[0].attempt.may_be_last);
        };
        let (relay, mut running) = run(config, Arc::new(observer)).await;
        Client::connect(relay)
            .await
            .sends_message("b@anywhere.example")
            .await;
        until("it was tried", || {
            (!seen.lock().expect("no panic").is_empty()).then_some(())
        })
        .await;
        running.stop();
        running.ended().await.expect("an orderly end");
        assert_eq!(*seen.lock().expect("no panic"), [may_be_last], "{expire}");
    }
}

#[tokio::test]
async fn what_fails_together_does_not_come_back_together() {
    let home = willing().await;
    let slow = peer(&["PIPELINING"], &[("RCPT", "451 4.2.1 later")]).await;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    fill(
        &folder.path().join("spool"),
        (0..30).map(|number| format!("b{number}@slow.example")),
        |_| (),
    )
    .await;
    let before = "[queue]\nretry = [\"1h\"]";
    let config = configured(
        folder.path(),
        home.address,
        before,
        &[connector("slow.example", slow.address, "")],
    );
    let (_, mut running) = run(config, Arc::new(())).await;
    let waits: Vec<i64> = until("all were tried", || {
        let wait = |state: &serde_json::Value| {
            let time = |value: &serde_json::Value| value.as_str()?.parse::<Timestamp>().ok();
            let (next, last) = (time(&state["next"])?, time(&state["history"][0]["at"])?);
            Some(next.duration_since(last).as_secs())
        };
        queue(folder.path())
            .iter()
            .map(|(_, envelope)| wait(&envelope["recipients"][0]["state"]["pending"]))
            .collect()
    })
    .await;
    running.stop();
    running.ended().await.expect("an orderly end");
    assert_eq!(waits.len(), 30);
    assert!(
        waits.iter().all(|wait| (3599..=3960).contains(wait)),
        "an hour, and up to a tenth: {waits:?}"
    );
    let minutes: BTreeSet<i64> = waits.iter().map(|wait| wait / 60).collect();
    assert!(minutes.len() >= 3, "spread over six minutes: {waits:?}");
}

#[tokio::test]
async fn a_restart_takes_everything_up_where_it_was() {
    let (home, sink) = (willing().await, Sink::start(1000).await);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let spool = folder.path().join("spool");
    let pending = |next: Option<Timestamp>| RecipientState::Pending {
        attempts: 3,
        next,
        history: FailureHistory::default(),
        warned: false,
        apart: false,
    };
    let now = Timestamp::now();
    let hours = |hours: i64| Some(now + jiff::SignedDuration::from_hours(hours));
    for (name, state) in [
        ("fresh", RecipientState::default()),
        ("overdue", pending(hours(-1))),
        ("later", pending(hours(1))),
        (
            "held",
            RecipientState::Held {
                attempts: 3,
                history: FailureHistory::default(),
            },
        ),
    ] {
        let change = |envelope: &mut gatepost::smtp::envelope::Envelope| {
            envelope.recipients[0].state = state.clone();
        };
        fill(&spool, [format!("{name}@a.example")], change).await;
    }
    let before = "[queue]\nretry = [\"2h\"]";
    let config = configured(
        folder.path(),
        home.address,
        before,
        &[connector("a.example", sink.address, "")],
    );
    let (log, observer) = logging();
    let (relay, mut running) = run(config, observer).await;
    until("those that are due have gone", || {
        (sink.taken() == 2).then_some(())
    })
    .await;
    // Whoever was to be tried at the start was before this one.
    Client::connect(relay)
        .await
        .sends_message("last@a.example")
        .await;
    until("the last one has gone", || {
        (sink.taken() == 3).then_some(())
    })
    .await;
    until("they are out of the queue", || {
        (queue(folder.path()).len() == 2).then_some(())
    })
    .await;
    running.stop();
    running.ended().await.expect("an orderly end");
    let mut tried = tried(&log);
    // The first two were due at the same time, and went side by side.
    tried[..2].sort();
    assert_eq!(tried, ["fresh", "overdue", "last"]);
    let left: Vec<_> = queue(folder.path())
        .into_iter()
        .map(|(_, envelope)| envelope["recipients"][0].clone())
        .collect();
    assert_eq!(left[0]["mailbox"], "later@a.example");
    assert_eq!(
        left[0]["state"]["pending"]["next"].as_str(),
        hours(1).map(|at| at.to_string()).as_deref()
    );
    assert_eq!(left[1]["mailbox"], "held@a.example");
}

/// The clock was years ahead when it was written down, and has been put right since.
#[tokio::test]
async fn a_time_far_in_the_future_is_no_reason_to_wait_for_years() {
    let (home, sink) = (willing().await, Sink::start(1000).await);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let next = Some(Timestamp::now() + jiff::SignedDuration::from_hours(24 * 3650));
    let state = RecipientState::Pending {
        attempts: 1,
        next,
        history: FailureHistory::default(),
        warned: false,
        apart: false,
    };
    let change = |envelope: &mut gatepost::smtp::envelope::Envelope| {
        envelope.recipients[0].state = state.clone();
    };
    fill(
        &folder.path().join("spool"),
        ["b@a.example".to_owned()],
        change,
    )
    .await;
    let before = "[queue]\nretry = [\"100ms\", \"500ms\"]";
    let config = configured(
        folder.path(),
        home.address,
        before,
        &[connector("a.example", sink.address, "")],
    );
    let (_, mut running) = run(config, Arc::new(())).await;
    until("it has gone", || (sink.taken() == 1).then_some(())).await;
    running.stop();
    running.ended().await.expect("an orderly end");
}

/// The clock is years ahead at the start, as it can be until it has asked the network: here it is
/// the queue that is years behind, which is the same.
#[tokio::test]
async fn a_clock_that_is_years_ahead_at_the_start_bounces_nothing() {
    let (home, slow) = (
        willing().await,
        peer(&[], &[("RCPT", "451 4.2.1 later")]).await,
    );
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let spool = folder.path().join("spool");
    fill(&spool, ["b@slow.example".to_owned()], |_| ()).await;
    let then = Timestamp::now() - jiff::SignedDuration::from_hours(24 * 3650);
    accepted_at(&spool.join("queue.db"), then);
    let before = "[queue]\nretry = [\"100ms\"]\nexpire = \"1h\"";
    let config = configured(
        folder.path(),
        home.address,
        before,
        &[connector("slow.example", slow.address, "")],
    );
    let (log, observer) = logging();
    let (_, mut running) = run(config, observer).await;
    until("it was tried three times", || {
        (tried(&log).len() >= 3).then_some(())
    })
    .await;
    running.stop();
    running.ended().await.expect("an orderly end");
    let left: Vec<_> = queue(folder.path())
        .into_iter()
        .map(|(_, envelope)| envelope["recipients"].clone())
        .collect();
    assert_eq!(
        (left.len(), left[0][0]["mailbox"].as_str()),
        (1, Some("b@slow.example")),
        "no report, and no end"
    );
}

/// As if the one message there had come in then, and nothing since.
fn accepted_at(database: &std::path::Path, then: Timestamp) {
    let queue = rusqlite::Connection::open(database).expect("a database");
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let (id, size, content): (i64, i64, u32) = queue
        .query_row("SELECT id, size, content_crc FROM message", [], row)
        .expect("a message");
    let millis = then.as_millisecond();
    let fixed = [
        &id.to_le_bytes()[..],
        &millis.to_le_bytes(),
        &size.to_le_bytes(),
        &content.to_le_bytes(),
    ]
    .concat();
    let sql = "UPDATE message SET accepted = ?1, fixed_crc = ?2";
    queue
        .execute(sql, (millis, crc32fast::hash(&fixed)))
        .expect("changed");
    drop(queue);
    let file = std::fs::File::options()
        .write(true)
        .open(database)
        .expect("ours");
    let modified = std::time::UNIX_EPOCH + Duration::from_millis(millis.unsigned_abs());
    file.set_modified(modified).expect("ours");
}

/// A panic ends the job of one message only, and the message is tried again.
#[tokio::test]
async fn work_that_panics_is_done_again_and_holds_up_nobody() {
    let (home, sink) = (willing().await, Sink::start(1000).await);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let before = "[queue]\nretry = [\"100ms\"]";
    let one = "connections = 1";
    let config = configured(
        folder.path(),
        home.address,
        before,
        &[connector("a.example", sink.address, one)],
    );
    let died = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let observer = move |_: &[RecipientEvent<'_>]| {
        assert!(
            died.swap(true, std::sync::atomic::Ordering::Relaxed),
            "the first attempt is meant to die"
        );
    };
    let (relay, mut running) = run(config, Arc::new(observer)).await;
    Client::connect(relay)
        .await
        .sends_message("b@a.example")
        .await;
    Client::connect(relay)
        .await
        .sends_message("c@a.example")
        .await;
    until("the queue is empty", || {
        queue(folder.path()).is_empty().then_some(())
    })
    .await;
    running.stop();
    running.ended().await.expect("an orderly end");
    sink.seen(|seen| {
        let mut taken: Vec<usize> = seen.taken.values().copied().collect();
        taken.sort_unstable();
        assert_eq!(
            taken,
            [1, 2],
            "what was taken before the work died comes twice, and all comes: {seen:?}"
        );
    });
}
