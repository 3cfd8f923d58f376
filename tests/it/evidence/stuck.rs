//! While evidence cannot be written nothing new is begun: it could not be finished, and would be
//! done again. Nor is anything forgotten, whatever else is finished meanwhile.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::accepted::accepted;
use super::daemon::{PATIENCE, configure, is_whole, queued, start, to, told};
use super::world::{files, folder};
use crate::support::client::{Client, Verdict};
use crate::support::message::{Message, SENDER};
use crate::support::sink::Sink;
use crate::support::within;

#[test]
fn nothing_is_begun_while_evidence_cannot_be_written_and_all_of_it_once_it_can() {
    let folder = folder();
    let sink = Sink::start();
    let mut relay = start(&configure(folder.path(), "path = \"evidence\"", &to(&sink)));
    let page = files(&folder.path().join("evidence")).remove(0);
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&page, &elsewhere)
        .and_then(|()| fs::create_dir(&page))
        .expect("ours");
    let mut client = Client::connect(relay.address).expect("it listens");
    let first = Message::new("first", &["a.example"], 500);
    assert!(matches!(client.send(&first), Verdict::Accepted(_)));
    relay.hears("cannot write evidence, deliveries wait");
    let waiting: Vec<_> = (0..5)
        .map(|at| Message::new(&format!("later{at}"), &["a.example", "b.example"], 500))
        .collect();
    for message in &waiting {
        assert!(
            matches!(client.send(message), Verdict::Accepted(_)),
            "mail is taken all the same"
        );
    }
    drop(client);
    // Many times what a delivery takes, and the writer tries again in between.
    std::thread::sleep(Duration::from_secs(3));
    let arrived: Vec<_> = sink
        .arrivals()
        .into_iter()
        .map(|arrival| arrival.recipient)
        .collect();
    assert_eq!(
        (arrived, queued(folder.path())),
        (first.recipients.clone(), Some(6))
    );
    fs::remove_dir(&page)
        .and_then(|()| fs::rename(&elsewhere, &page))
        .expect("ours");
    // Nobody lends a hand: no signal, no message that is new.
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
    let tally = sink.tally().unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!((tally.len(), told(folder.path()).len()), (11, 11));
    assert!(
        tally.values().all(|relays| relays.len() == 1),
        "each arrives once: {tally:?}"
    );
}

/// A configuration by which mail for slow.example goes to `slow`, and all other to the sink.
fn beside(sink: &Sink, slow: &TcpListener, folder: &Path) -> PathBuf {
    let route = slow.local_addr().expect("it is bound");
    let connectors = format!(
        "{}[[connector]]\nname = \"slow\"\ndomains = [\"slow.example\"]\n[connector.outbound]\n\
         route = [\"{route}\"]\ntls = \"off\"\n",
        to(sink)
    );
    configure(folder, "path = \"evidence\"", &connectors)
}

/// Greets, and refuses everybody's mail.
fn refuse(stream: &TcpStream) {
    let mut lines = BufReader::new(stream.try_clone().expect("one more handle")).lines();
    let say = |reply: &[u8]| (&*stream).write_all(reply).expect("it listens");
    say(b"220 slow.example\r\n");
    while let Some(Ok(line)) = lines.next() {
        say(match line.get(..4) {
            Some("EHLO") => b"250 slow.example\r\n",
            Some("QUIT") => b"221 2.0.0 Bye\r\n",
            _ => b"550 5.7.1 Nobody here takes your mail\r\n",
        });
    }
}

/// A report that is out while its evidence is not would go out once more after the restart.
#[test]
fn a_report_follows_the_record_and_comes_once() {
    let folder = folder();
    let sink = Sink::start();
    let slow = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let file = beside(&sink, &slow, folder.path());
    let mut relay = start(&file);
    let mut client = Client::connect(relay.address).expect("it listens");
    assert!(matches!(
        client.send(&Message::new("refused", &["slow.example"], 500)),
        Verdict::Accepted(_)
    ));
    let (called, _) = slow.accept().expect("it calls");
    let page = files(&folder.path().join("evidence")).remove(0);
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&page, &elsewhere)
        .and_then(|()| fs::create_dir(&page))
        .expect("ours");
    assert!(matches!(
        client.send(&Message::new("stuck", &["a.example"], 500)),
        Verdict::Accepted(_)
    ));
    drop(client);
    relay.hears("cannot write evidence, deliveries wait");
    refuse(&called);
    relay.signal("TERM");
    relay.hears("attempt result not stored because its evidence cannot be written");
    assert!(
        relay
            .ends_by_itself()
            .status
            .is_some_and(|status| status.success())
    );
    assert_eq!(queued(folder.path()), Some(2), "a report would be one more");

    fs::remove_dir(&page)
        .and_then(|()| fs::rename(&elsewhere, &page))
        .expect("ours");
    let relay = start(&file);
    refuse(&slow.accept().expect("it calls again").0);
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
    let told = sink
        .arrivals()
        .into_iter()
        .filter(|arrival| arrival.recipient == SENDER)
        .count();
    assert_eq!(told, 1);
    is_whole(folder.path());
}

/// Two destinations of one message share what is known of it, and each writes down all of that.
#[test]
fn a_delivery_that_is_not_on_record_is_not_forgotten_with_another_that_is() {
    let folder = folder();
    let sink = Sink::start();
    // It connects, and nobody greets.
    let slow = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let file = beside(&sink, &slow, folder.path());
    let mut relay = start(&file);
    let page = files(&folder.path().join("evidence")).remove(0);
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&page, &elsewhere)
        .and_then(|()| fs::create_dir(&page))
        .expect("ours");
    let message = Message::new("m", &["a.example", "slow.example"], 500);
    let verdict = Client::connect(relay.address)
        .expect("it listens")
        .send(&message);
    assert!(matches!(verdict, Verdict::Accepted(_)), "{verdict:?}");
    relay.hears("cannot write evidence, deliveries wait");
    relay.signal("TERM");
    relay.hears("attempt result not stored because its evidence cannot be written");
    fs::remove_dir(&page)
        .and_then(|()| fs::rename(&elsewhere, &page))
        .expect("ours");
    // The other one is still in flight, and can be put on record.
    sink.serve(slow);
    assert!(
        relay
            .ends_by_itself()
            .status
            .is_some_and(|status| status.success())
    );
    assert_eq!(
        sink.wait_for(&message.recipients, PATIENCE),
        Vec::<&str>::new()
    );
    assert_eq!(
        told(folder.path())
            .into_iter()
            .map(|delivery| delivery.to)
            .collect::<Vec<_>>(),
        ["m@slow.example"]
    );
    assert_eq!(
        queued(folder.path()),
        Some(1),
        "m@a.example is not on record, and must not be forgotten"
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
    let told: Vec<_> = told(folder.path())
        .into_iter()
        .map(|delivery| delivery.to)
        .collect();
    assert_eq!(told, ["m@slow.example", "m@a.example"]);
    assert_eq!(
        accepted(folder.path()).len(),
        1,
        "that it came in is on record with the first of them alone"
    );
    is_whole(folder.path());
}
