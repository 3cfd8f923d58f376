//! The order of things in an undisturbed exchange: last octet in, data synced, 250 out.

use std::path::Path;

use super::home::{FIRST_SEGMENT, Home};
use super::servers::ClosedPort;
use super::strace::{self, CHANGES, Call, TALK};
use super::{ARRIVES, owed, script};
use crate::support::client::{Verdict, send_all};
use crate::support::message::{Message, last_line};
use crate::support::place;
use crate::support::relay::Relay;
use crate::support::sink::Sink;

#[test]
#[ignore = "needs strace: .ci/durability"]
fn each_message_is_synced_before_its_250() {
    let folder = place();
    let (sink, closed) = (Sink::start(), ClosedPort::take());
    let spool = folder.path().join("spool");
    let home = Home {
        folder: folder.path().to_owned(),
        spool,
        sink: sink.address,
        down: closed.address,
    };
    let trace = folder.path().join("trace");
    let (messages, verdicts) = (script(), traced(&home, &sink, closed, &trace, &[]));
    let calls = strace::read(&trace);
    for (message, verdict) in messages.iter().zip(&verdicts) {
        let Verdict::Accepted(id) = verdict else {
            panic!("{}: {verdict:?}", message.name)
        };
        println!(
            "{id} {:6} octets: {}",
            message.content.len(),
            proof(&calls, &home.spool, message, id)
        );
    }
    let tally = sink.tally().unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(tally.len(), owed(&messages, &verdicts).len());
    assert!(
        tally.values().all(|relays| relays.len() == 1),
        "undisturbed, each arrives once: {tally:?}"
    );
}

/// The script, undisturbed, under strace, until everything has arrived and the relay has ended.
/// `more` are options of strace.
pub(crate) fn traced(
    home: &Home,
    sink: &Sink,
    closed: ClosedPort,
    trace: &Path,
    more: &[&str],
) -> Vec<Verdict> {
    let calls = format!("trace={CHANGES},{TALK}");
    let under = strace::command(trace, &[&["-s", "1000000", "-e", &calls], more].concat());
    let relay =
        Relay::start(home, "traced.example", &under).unwrap_or_else(|end| panic!("{}", end.log));
    let messages = script();
    let verdicts = send_all(relay.address, &messages);
    sink.serve(closed.open());
    let owed = owed(&messages, &verdicts);
    let missing = sink.wait_for(&owed, ARRIVES);
    let clean = home.expect_clean(relay);
    assert!(missing.is_empty(), "never arrived: {missing:?}");
    clean
        .and_then(|()| home.expect_recorded(owed, &sink.times()))
        .unwrap_or_else(|fault| panic!("{fault}"));
    verdicts
}

/// The call that acknowledges a message to its client.
pub(crate) fn acceptance<'a>(calls: &'a [Call], id: &str) -> &'a Call {
    let words = format!("250 2.0.0 Ok: queued as {id}");
    let mut told = calls
        .iter()
        .filter(|call| matches!(call.name.as_str(), "sendto" | "write" | "writev"));
    told.find(|call| call.says(&words))
        .unwrap_or_else(|| panic!("the trace has no {words:?}"))
}

/// Shows that a message was durable before its 250, by the lines of the trace.
fn proof(calls: &[Call], spool: &Path, message: &Message, id: &str) -> String {
    let path = |name: &str| spool.join(name).display().to_string();
    let (log, bodies) = (path(FIRST_SEGMENT), path("bodies"));
    let (part, body) = (format!("{bodies}/{id}.part"), format!("{bodies}/{id}"));
    let reply = acceptance(calls, id);
    let client = reply.target();
    let reads =
        |call: &&Call| matches!(call.name.as_str(), "recvfrom" | "read") && call.target() == client;
    let before = calls
        .iter()
        .filter(|call| call.ended < reply.began && call.result > Some(0));
    let read = before
        .clone()
        .rfind(reads)
        .unwrap_or_else(|| panic!("{id}: nothing was read"));

    let on = |call: &Call, file: &str| call.target().as_deref() == Some(file);
    let writes = |file: &str, call: &Call| call.is_write() && on(call, file);
    let syncs = |file: &str, call: &Call| call.is_sync() && on(call, file);
    let last_line = last_line(&message.name);
    let mut steps = Steps {
        message,
        reply,
        calls,
        at: read,
        told: vec![format!(
            "last octet read in line {} of the trace",
            read.ended + 1
        )],
    };
    if message.content.len() > 128 * 1024 {
        // The end of the body may be in its file before the last octet, the dot, is read.
        let written = before
            .clone()
            .find(|call| writes(&part, call) && call.says(&last_line));
        let written = written.unwrap_or_else(|| panic!("{id}: its end was not written to {part}"));
        steps.at = if written.ended > read.ended {
            written
        } else {
            read
        };
        steps.next("body file synced", |call| syncs(&part, call));
        steps.next("named", |call| {
            call.name.starts_with("rename")
                && call
                    .strings()
                    .last()
                    .is_some_and(|to| to == body.as_bytes())
        });
        steps.next("folder synced", |call| syncs(&bodies, call));
        steps.next("queue's log written", |call| writes(&log, call));
    } else {
        steps.next("queue's log written", |call| {
            writes(&log, call) && call.says(&last_line)
        });
    }
    steps.next("synced", |call| syncs(&log, call));
    format!("{}, 250 in {}", steps.told.join(", "), reply.began + 1)
}

/// Steps of which each must begin after the one before has ended, and end before the reply begins.
struct Steps<'a> {
    message: &'a Message,
    reply: &'a Call,
    calls: &'a [Call],
    /// The last one.
    at: &'a Call,
    told: Vec<String>,
}

impl Steps<'_> {
    fn next(&mut self, what: &str, is_it: impl Fn(&Call) -> bool) {
        let fits = |call: &&Call| {
            call.began > self.at.ended && call.ended < self.reply.began && call.result.is_some()
        };
        let found = self.calls.iter().filter(fits).find(|call| is_it(call));
        let Some(found) = found else {
            panic!(
                "{}: {}; then no \"{what}\" before its 250 in line {}",
                self.message.name,
                self.told.join(", "),
                self.reply.began + 1
            )
        };
        self.told.push(format!("{what} in {}", found.ended + 1));
        self.at = found;
    }
}
