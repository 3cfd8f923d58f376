//! The power goes: what had not been synced by then is forgotten, or some of it, and a relay starts
//! on the rest.
//!
//! Half of the images keep only what was synced; the others keep some of the later writes, in any
//! order and torn at sectors, and some of the later names. This shows what a sync that is missing
//! would do, which no kill can: after a kill the kernel still has everything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::disk::{Disk, Image, events};
use super::home::Home;
use super::order::{acceptance, traced};
use super::servers::ClosedPort;
use super::strace::{self, Call};
use super::{ARRIVES, script, side_by_side};
use crate::support::client::Verdict;
use crate::support::relay::Relay;
use crate::support::sink::{Arrival, Sink};
use crate::support::{Dice, place};

/// Moments at which the power goes, at most.
const MOMENTS: usize = 120;

/// A moment at which the power went.
#[derive(Debug)]
struct Moment {
    /// For people.
    when: String,
    image: Image,
    /// The recipients of what had been accepted …
    accepted: Vec<String>,
    /// … and was not delivered yet.
    owed: Vec<String>,
}

#[test]
#[ignore = "needs strace: .ci/durability"]
fn nothing_acknowledged_is_lost_with_the_power() {
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
    let verdicts = traced(&home, &sink, closed, &trace, &[]);
    let before = sink.times();
    let moments = moments(
        &strace::read(&trace),
        &home.folder,
        &verdicts,
        &sink.arrivals(),
    );
    let owing = moments
        .iter()
        .filter(|moment| !moment.owed.is_empty())
        .count();
    println!(
        "{} moments, at {owing} of them accepted messages were waiting",
        moments.len()
    );
    assert!(owing > MOMENTS / 5, "too few of them: this proves nothing");
    let ran = side_by_side(moments, |moment| {
        restart(&moment, &home.folder, &before).map_err(|fault| format!("{}: {fault}", moment.when))
    });
    let faults: Vec<_> = ran.into_iter().filter_map(Result::err).collect();
    assert!(
        faults.is_empty(),
        "{} faults, the first:\n{}",
        faults.len(),
        faults[0]
    );
}

/// Replays a trace, and stops the clock after calls of which there are not too many.
fn moments(
    calls: &[Call],
    folder: &Path,
    verdicts: &[Verdict],
    arrivals: &[Arrival],
) -> Vec<Moment> {
    let script = script();
    let accepted: Vec<_> = script
        .iter()
        .zip(verdicts)
        .filter_map(|(message, verdict)| match verdict {
            Verdict::Accepted(id) => Some((acceptance(calls, id).began, message)),
            Verdict::Refused(_) | Verdict::Lost => None,
        })
        .collect();
    let events = events(calls, folder);
    let step = (events.len() / MOMENTS).max(1);
    let (mut disk, mut dice, mut moments) = (Disk::default(), Dice::new(1), Vec::new());
    for (count, event) in events.iter().enumerate() {
        disk.happen(event);
        let (line, call) = (event.line, event.call);
        let told = accepted.iter().any(|(at, _)| *at == line);
        if !told && count % step != 0 {
            continue;
        }
        let has = |to: &String| {
            arrivals
                .iter()
                .any(|arrival| arrival.recipient == *to && arrival.at <= call.at)
        };
        let known = accepted
            .iter()
            .filter(|(at, _)| *at <= line)
            .flat_map(|(_, message)| &message.recipients);
        let accepted: Vec<String> = known.cloned().collect();
        let owed = accepted.iter().filter(|to| !has(to)).cloned().collect();
        let strict = told || moments.len() % 2 == 0;
        let image = disk.image((!strict).then(|| Dice::new(dice.below(u64::MAX))));
        let kept = if strict {
            "only what was synced"
        } else {
            "some of what was not synced"
        };
        moments.push(Moment {
            when: format!("power lost at line {} of the trace, {kept} kept", line + 1),
            image,
            accepted,
            owed,
        });
    }
    moments
}

/// A relay starts on what the disk had: all that is owed arrives, nothing is half there, and of all
/// that was accepted the evidence has the delivery, whether it was before or after. `before` is
/// how often something had arrived for each recipient then, or did later.
fn restart(moment: &Moment, traced: &Path, before: &BTreeMap<String, usize>) -> Result<(), String> {
    let folder = place();
    let (sink, closed) = (Sink::start(), ClosedPort::take());
    let spool = folder.path().join("spool");
    for folder in ["", "bodies", "aside"] {
        std::fs::create_dir(spool.join(folder)).map_err(|error| error.to_string())?;
    }
    for (name, content) in &moment.image {
        let name = name
            .strip_prefix(traced)
            .map_err(|error| error.to_string())?;
        let file = folder.path().join(name);
        let parent = file.parent().expect("it is in that folder");
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&file, content))
            .map_err(|error| error.to_string())?;
    }
    let home = Home {
        folder: folder.path().to_owned(),
        spool,
        sink: sink.address,
        down: closed.address,
    };
    sink.serve(closed.open());
    let relay = Relay::start(&home, "restarted.example", &[])
        .map_err(|end| format!("no start: {}", end.log))?;
    let missing = sink.wait_for(&moment.owed, ARRIVES);
    let missing: Vec<_> = missing.into_iter().map(str::to_owned).collect();
    let clean = home.expect_clean(relay);
    if !missing.is_empty() {
        return Err(format!(
            "accepted, but never arrived: {missing:?}; {clean:?}"
        ));
    }
    clean?;
    sink.tally()?;
    let mut times = sink.times();
    let owed: BTreeSet<_> = times.keys().chain(&moment.accepted).cloned().collect();
    for (to, count) in before {
        *times.entry(to.clone()).or_default() += count;
    }
    home.expect_recorded(owed, &times)
}
