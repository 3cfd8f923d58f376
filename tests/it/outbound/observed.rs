//! Observers of sessions, where a session comes to no end of its own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gatepost::relay::outbound::{AttemptLimit, DeliveryObserver, SessionEvent, SessionOutcome};
use tokio::net::TcpListener;

use crate::support::deliveries::{World, attempt, connector, message, outcome};

/// Records the peer and the failure of each session.
#[derive(Default)]
struct FailedSessions(Mutex<Vec<String>>);

impl DeliveryObserver for FailedSessions {
    fn observe_session(&self, event: &SessionEvent<'_>) {
        let SessionOutcome::Failed(failure) = event.outcome else {
            panic!("no session was cleared: {event:?}")
        };
        assert!(
            event.steps.verdicts.is_empty(),
            "nothing was judged: {event:?}"
        );
        let address = &event.peer.expect("it was dialled").address;
        let line = format!("{address}: {failure}");
        self.0.lock().expect("no panic").push(line);
    }
}

/// A session that is cut short by the time limit of the attempt has one event, as a failed one.
#[tokio::test]
async fn a_session_that_is_cut_short_has_one_event() {
    let world = World::new().await;
    // It accepts the connection and sends no greeting.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = silent.local_addr().expect("an address");
    let route = connector(
        "silent",
        &["partner.example"],
        &format!("route = [\"{address}\"]\ntls = \"off\""),
    );
    let sessions = Arc::new(FailedSessions::default());
    let outbound = world
        .outbound(&route)
        .observed_by(Arc::clone(&sessions) as _);
    let limit = AttemptLimit::new(Duration::from_millis(300));
    let report = outbound
        .deliver_within(attempt(message(&["b@partner.example"])), &limit)
        .await;
    assert_eq!(outcome(&report, 0), "deferred 4.4.2", "{report:?}");
    let seen = sessions.0.lock().expect("no panic").clone();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(
        seen[0].starts_with(&format!(
            "{address}: [127.0.0.1]:{}: the attempt was ended",
            address.port()
        )),
        "{seen:?}"
    );
}
