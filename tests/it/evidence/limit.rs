//! `[evidence] max_size`: warnings, 452 to new mail, and deliveries that wait and go on.

use std::fs;
use std::path::Path;

use super::daemon::{PATIENCE, configure, is_whole, queued, start, to, told};
use super::world::{evidence_folder, folder};
use crate::support::client::{Client, Verdict};
use crate::support::message::Message;
use crate::support::relay::Relay;
use crate::support::sink::Sink;
use crate::support::within;

const FULL: &str = "452 4.3.1 ";

/// Fills the folder of the evidence up to so many octets, lets the relay measure it, and waits for
/// these words in its log.
fn fill(folder: &Path, relay: &mut Relay, octets: u64, words: &str) {
    fill_folder(&folder.join("evidence"), octets);
    relay.signal("HUP");
    relay.hears(words);
}

/// Fills a folder with evidence up to so many octets. They need no space on the disk.
fn fill_folder(evidence: &Path, octets: u64) {
    let records: u64 = fs::read_dir(evidence)
        .expect("a folder")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.file_name().to_string_lossy().contains(".jsonl"))
        .map(|entry| entry.metadata().expect("a file").len())
        .sum();
    let mut ballast = fs::File::options();
    ballast
        .write(true)
        .create(true)
        .truncate(false)
        .open(evidence.join("torn-2026-01-01-5"))
        .and_then(|file| file.set_len(octets.saturating_sub(records)))
        .expect("ours");
}

fn limited(folder: &Path, sink: &Sink, max_size: &str) -> std::path::PathBuf {
    let evidence = format!("path = \"evidence\"\nmax_size = \"{max_size}\"");
    configure(folder, &evidence, &to(sink))
}

fn percent(share: u64) -> u64 {
    (1 << 20) * share / 100 + 1
}

#[test]
fn evidence_near_its_limit_is_logged_once_and_at_95_percent_new_mail_gets_452() {
    let folder = folder();
    let sink = Sink::start();
    let mut relay = start(&limited(folder.path(), &sink, "1MiB"));
    let mut client = Client::connect(relay.address).expect("it listens");
    let mut under_way = Client::connect(relay.address).expect("it listens");
    let (fills, nothing) = (
        "evidence fills [evidence] max_size",
        "configuration reloaded",
    );
    for (share, words) in [(82, fills), (84, nothing), (92, fills), (93, nothing)] {
        fill(folder.path(), &mut relay, percent(share), words);
        let message = Message::new(&format!("at{share}"), &["a.example"], 300);
        assert!(
            matches!(client.send(&message), Verdict::Accepted(_)),
            "at {share} %"
        );
    }
    let late = Message::new("late", &["a.example"], 300);
    let begun = under_way.begin(&late).expect("replies");
    assert_eq!(begun, None, "it has the space that it needs");
    let words = "evidence has reached 95 % of [evidence] max_size; new";
    fill(folder.path(), &mut relay, percent(96), words);
    let refused = client.send(&Message::new("refused", &["a.example"], 300));
    assert!(
        matches!(&refused, Verdict::Refused(reply) if reply.starts_with(FULL)),
        "{refused:?}"
    );
    relay.hears("message cannot be stored");
    // What has been accepted is delivered and recorded within the margin.
    let verdict = under_way.complete(&late).expect("a reply");
    assert!(matches!(verdict, Verdict::Accepted(_)), "{verdict:?}");
    assert!(within(PATIENCE, || queued(folder.path()) == Some(0)));
    fill(folder.path(), &mut relay, 0, "evidence is under 80 %");
    let after = client.send(&Message::new("after", &["a.example"], 300));
    assert!(matches!(after, Verdict::Accepted(_)), "{after:?}");
    assert!(within(PATIENCE, || told(folder.path()).len() == 6));
    let end = relay.terminate();
    for (line, times) in [(fills, 2), (words, 1), ("evidence is under 80 %", 1)] {
        assert_eq!(end.log.matches(line).count(), times, "{line}: {}", end.log);
    }
    is_whole(folder.path());
}

#[test]
fn deliveries_wait_at_the_limit_and_go_on_when_it_is_raised() {
    let folder = folder();
    let sink = Sink::start();
    let mut relay = start(&limited(folder.path(), &sink, "1MiB"));
    let mut client = Client::connect(relay.address).expect("it listens");
    let late = Message::new("late", &["a.example"], 300);
    assert_eq!(client.begin(&late).expect("replies"), None);
    let words = "evidence has reached [evidence] max_size; new mail";
    fill(folder.path(), &mut relay, 1 << 20, words);
    let verdict = client.complete(&late).expect("a reply");
    assert!(matches!(verdict, Verdict::Accepted(_)), "{verdict:?}");
    let line = relay.hears("cannot write evidence, deliveries wait");
    assert!(line.contains("[evidence] max_size is 1048576"), "{line}");
    assert_eq!(
        (queued(folder.path()), told(folder.path()).len()),
        (Some(1), 0)
    );
    limited(folder.path(), &sink, "2MiB");
    relay.signal("HUP");
    assert!(within(PATIENCE, || queued(folder.path()) == Some(0)));
    assert_eq!(told(folder.path()).len(), 1);
    let end = relay.terminate();
    assert!(
        end.status.is_some_and(|status| status.success()),
        "{}",
        end.log
    );
    is_whole(folder.path());
    let tally = sink.tally().unwrap_or_else(|fault| panic!("{fault}"));
    assert!(tally.values().all(|relays| relays.len() == 1), "{tally:?}");
}

/// A version without a limit may have left more than the default allows. The update stops no mail.
#[test]
fn evidence_over_the_default_limit_at_the_start_stops_no_mail() {
    let folder = folder();
    let evidence = evidence_folder(folder.path());
    let sink = Sink::start();
    let file = configure(folder.path(), "path = \"evidence\"", &to(&sink));
    for (before, later) in [(60, 72), (72, 86)] {
        fill_folder(&evidence, before << 30);
        let mut relay = start(&file);
        let mut client = Client::connect(relay.address).expect("it listens");
        for at in ["start", "reload"] {
            let message = Message::new(&format!("{before}-{at}"), &["a.example"], 300);
            let verdict = client.send(&message);
            assert!(
                matches!(verdict, Verdict::Accepted(_)),
                "{at} with {before} GiB: {verdict:?}"
            );
            relay.signal("HUP");
            relay.hears("configuration reloaded");
        }
        let words = "evidence has reached 95 % of [evidence] max_size; new";
        fill(folder.path(), &mut relay, later << 30, words);
        let refused = client.send(&Message::new("refused", &["a.example"], 300));
        assert!(
            matches!(&refused, Verdict::Refused(reply) if reply.starts_with(FULL)),
            "{refused:?}"
        );
        let end = relay.terminate();
        for words in [
            "a higher limit applies until the next start",
            "evidence fills [evidence] max_size",
        ] {
            assert_eq!(end.log.matches(words).count(), 1, "{words}: {}", end.log);
        }
    }
    is_whole(folder.path());
}

/// A limit that is set holds at the start, too.
#[test]
fn evidence_over_a_set_limit_at_the_start_stops_mail() {
    let folder = folder();
    let evidence = evidence_folder(folder.path());
    fill_folder(&evidence, 2 << 20);
    let sink = Sink::start();
    let relay = start(&limited(folder.path(), &sink, "1MiB"));
    let mut client = Client::connect(relay.address).expect("it listens");
    let refused = client.send(&Message::new("refused", &["a.example"], 300));
    assert!(
        matches!(&refused, Verdict::Refused(reply) if reply.starts_with(FULL)),
        "{refused:?}"
    );
}
