//! The order of things in an undisturbed exchange: last octet in, data synced, 250 out.

use std::path::Path;

use crate::strace::{self, CHANGES, Call, TALK};
use crate::support::client::{Verdict, send_all};
use crate::support::message::Message;
use crate::support::relay::{Home, Relay};
use crate::support::sink::{ClosedPort, Sink};
use crate::{ARRIVES, owed, script};

#[test]
#[ignore = "needs strace: .ci/durability"]
fn each_message_is_synced_before_its_250() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let (sink, closed) = (Sink::start(), ClosedPort::take());
    let spool = folder.path().join("spool");
    let home = Home { folder: folder.path().to_owned(), spool, sink: sink.address, down: closed.address };
    let trace = folder.path().join("trace");
    let (messages, verdicts) = (script(), traced(&home, &sink, closed, &trace));
    let calls = strace::read(&trace);
    for (message, verdict) in messages.iter().zip(&verdicts) {
        let Verdict::Accepted(id) = verdict else { panic!("{}: {verdict:?}", message.name) };
        println!("{id} {:6} octets: {}", message.content.len(), proof(&calls, &home.spool, message, id));
    }
    let tally = sink.tally().unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(tally.len(), owed(&messages, &verdicts).len());
    assert!(tally.values().all(|relays| relays.len() == 1), "undisturbed, each arrives once: {tally:?}");
}

/// The script, undisturbed, under strace, until everything has arrived and the relay has ended.
pub(crate) fn traced(home: &Home, sink: &Sink, closed: ClosedPort, trace: &Path) -> Vec<Verdict> {
    let calls = format!("trace={CHANGES},{TALK}");
    let under = strace::command(trace, &["-s", "1000000", "-e", &calls]);
    let relay = Relay::start(home, "traced.example", &under).unwrap_or_else(|end| panic!("{}", end.log));
    let messages = script();
    let verdicts = send_all(relay.address, &messages);
    sink.serve(closed.open());
    let owed = owed(&messages, &verdicts);
    let missing = sink.wait_for(&owed, ARRIVES);
    let clean = home.expect_clean(relay);
    assert!(missing.is_empty(), "never arrived: {missing:?}");
    clean.unwrap_or_else(|fault| panic!("{fault}"));
    verdicts
}

/// The call that tells a client of its message's acceptance.
pub(crate) fn acceptance<'a>(calls: &'a [Call], id: &str) -> &'a Call {
    let words = format!("250 2.0.0 Ok: queued as {id}");
    let mut told = calls.iter().filter(|call| matches!(call.name.as_str(), "sendto" | "write" | "writev"));
    told.find(|call| call.says(&words)).unwrap_or_else(|| panic!("the trace has no {words:?}"))
}

/// Shows that a message was durable before its 250, by the lines of the trace.
fn proof(calls: &[Call], spool: &Path, message: &Message, id: &str) -> String {
    let path = |name: &str| spool.join(name).display().to_string();
    let (log, bodies) = (path("queue.db-wal"), path("bodies"));
    let (part, body) = (format!("{bodies}/{id}.part"), format!("{bodies}/{id}"));
    let reply = acceptance(calls, id);
    let client = reply.target();
    let reads =
        calls.iter().filter(|call| matches!(call.name.as_str(), "recvfrom" | "read") && call.target() == client);
    let last_read = reads.filter(|call| call.ended < reply.began && call.result > Some(0)).last();
    let last_read = last_read.unwrap_or_else(|| panic!("{id}: nothing was read"));

    // Each step must begin after the one before has ended, and all must end before the reply begins.
    let step = |what: &str, after: &Call, is_it: &dyn Fn(&Call) -> bool| -> &Call {
        let between = |call: &&Call| call.began > after.ended && call.ended < reply.began && call.result.is_some();
        calls.iter().filter(between).find(|call| is_it(call)).unwrap_or_else(|| {
            panic!(
                "{}: between line {} of the trace and its 250 in line {} nothing did {what}",
                message.name,
                after.ended + 1,
                reply.began + 1
            )
        })
    };
    let on = |call: &Call, file: &str| call.target().as_deref() == Some(file);
    let last_line = message.last_line();
    let (log_written, mut told) = if message.content.len() > 128 * 1024 {
        let written = calls.iter().find(|call| call.is_write() && on(call, &part) && call.says(&last_line));
        let written = written.unwrap_or_else(|| panic!("{id}: its end was not written to {part}"));
        let synced = step("sync its body file", written, &|call| call.is_sync() && on(call, &part));
        assert!(synced.began > last_read.ended);
        let renames = |call: &Call| {
            call.name.starts_with("rename") && call.strings().last().map(Vec::as_slice) == Some(body.as_bytes())
        };
        let renamed = step("name its body file", synced, &renames);
        let folder = step("sync the folder of its body file", renamed, &|call| call.is_sync() && on(call, &bodies));
        let lines = [synced, renamed, folder].map(|call| call.ended + 1);
        let told =
            format!("body file synced in line {}, named in {}, folder synced in {}, ", lines[0], lines[1], lines[2]);
        (step("write the queue's log", folder, &|call| call.is_write() && on(call, &log)), told)
    } else {
        let writes = |call: &Call| call.is_write() && on(call, &log) && call.says(&last_line);
        (step("write it to the queue's log", last_read, &writes), String::new())
    };
    let synced = step("sync the queue's log", log_written, &|call| call.is_sync() && on(call, &log));
    told.push_str(&format!("log written in {}, synced in {}", log_written.ended + 1, synced.ended + 1));
    format!("last octet read in line {} of the trace, {told}, 250 in {}", last_read.ended + 1, reply.began + 1)
}
