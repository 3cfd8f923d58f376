//! While evidence cannot be written nothing new is begun: it could not be finished, and would be done again.

use std::fs;
use std::time::Duration;

use crate::daemon::{PATIENCE, configure, is_whole, queued, start, to, told};
use crate::support::client::{Client, Verdict};
use crate::support::message::Message;
use crate::support::sink::Sink;
use crate::support::within;
use crate::world::{files, folder};

#[test]
fn nothing_is_begun_while_evidence_cannot_be_written_and_all_of_it_once_it_can() {
    let folder = folder();
    let sink = Sink::start();
    let mut relay = start(&configure(folder.path(), "path = \"evidence\"", &to(&sink)));
    let page = files(&folder.path().join("evidence")).remove(0);
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&page, &elsewhere).and_then(|()| fs::create_dir(&page)).expect("ours");
    let mut client = Client::connect(relay.address).expect("it listens");
    let first = Message::new("first", &["a.example"], 500);
    assert!(matches!(client.send(&first), Verdict::Accepted(_)));
    relay.hears("evidence cannot be written, and no delivery is finished without it");
    let waiting: Vec<_> =
        (0..5).map(|at| Message::new(&format!("later{at}"), &["a.example", "b.example"], 500)).collect();
    for message in &waiting {
        assert!(matches!(client.send(message), Verdict::Accepted(_)), "mail is taken all the same");
    }
    // Many times what a delivery takes, and the writer tries again in between.
    std::thread::sleep(Duration::from_secs(3));
    let arrived: Vec<_> = sink.arrivals().into_iter().map(|arrival| arrival.recipient).collect();
    assert_eq!((arrived, queued(folder.path())), (first.recipients.clone(), Some(6)));
    fs::remove_dir(&page).and_then(|()| fs::rename(&elsewhere, &page)).expect("ours");
    // Nobody lends a hand: no signal, no message that is new.
    assert!(within(PATIENCE, || queued(folder.path()) == Some(0)), "{:?}", queued(folder.path()));
    assert!(relay.terminate().status.is_some_and(|status| status.success()));
    is_whole(folder.path());
    let tally = sink.tally().unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!((tally.len(), told(folder.path()).len()), (11, 11));
    assert!(tally.values().all(|relays| relays.len() == 1), "each arrives once: {tally:?}");
}
