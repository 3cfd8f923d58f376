//! Seats and limits over the shared table.

use tokio::time::timeout;

use super::*;
use crate::relay::inbound::Limit;

fn wait(time: Duration) -> (oneshot::Sender<Seat>, SeatWait) {
    let (grant, granted) = oneshot::channel();
    let refusal = LimitReached {
        limit: Limit::All,
        network: None,
        most: 1,
        wait: None,
    };
    let (clients, until) = (Clients::default(), Instant::now() + time);
    (
        grant,
        SeatWait {
            clients,
            listener: "mx".into(),
            key: (None, 1),
            granted,
            refusal,
            until,
        },
    )
}

#[tokio::test]
async fn the_wait_ends_after_its_time_or_with_the_removal_from_the_queue() {
    let (grant, waiting) = wait(Duration::from_millis(20));
    let waited = timeout(Duration::from_secs(5), waiting.seat())
        .await
        .expect("in time");
    assert_eq!(waited.err().map(|refusal| refusal.limit), Some(Limit::All));
    drop(grant);
    let (grant, waiting) = wait(WAIT);
    drop(grant);
    let waited = timeout(Duration::from_secs(5), waiting.seat())
        .await
        .expect("in time");
    assert!(waited.is_err(), "others are served first");
}

/// A client that waits for a seat and goes away leaves its place to another.
#[test]
fn a_client_that_goes_leaves_the_queue() {
    let (_grant, waiting) = wait(WAIT);
    let clients = waiting.clients.clone();
    let (grant, _granted) = oneshot::channel();
    let waiter = WaitingClient {
        request: request("192.0.2.1", ClientKind::Stranger),
        limits: ClientLimits::of(10, 3),
        grant,
    };
    let key = lock(&clients.0.seats).queue.push(waiter, None);
    assert_eq!(key, Some(waiting.key));
    drop(waiting);
    assert_eq!(lock(&clients.0.seats).queue.count(), 0);
}

fn request(address: &str, kind: ClientKind) -> SeatRequest {
    SeatRequest {
        address: address.parse().expect("an address"),
        kind,
        listener: "mx".into(),
        listener_seats: 4,
    }
}

/// So many connections may wait for their headers, and a connection that was refused uses no
/// permit.
#[test]
fn connections_that_wait_for_a_header_are_limited() {
    let clients = Clients::default();
    let mut waiting: Vec<_> = (0..3)
        .map(|_| clients.permit_header_wait(3).expect("a permit"))
        .collect();
    for _ in 0..2 {
        assert!(clients.permit_header_wait(3).is_none());
    }
    drop(waiting.pop());
    assert!(clients.permit_header_wait(3).is_some());
}

/// Strangers have to hurry while their seats are scarce; clients of ours have not.
#[test]
fn scarcity_shortens_the_timeouts_of_strangers_alone() {
    let clients = Clients::default();
    let limits = ClientLimits {
        connections_reserved: 4,
        ..ClientLimits::of(8, 8)
    };
    let seat = |address: &str, kind| {
        let request = request(address, kind);
        let given = lock(&clients.0.seats).give(&request, &limits, Duration::ZERO);
        Seat::new(&clients, &request, given.expect("a seat"))
    };
    let own = seat("127.0.0.1", ClientKind::Own);
    let mut strangers: Vec<_> = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
        .map(|address| seat(address, ClientKind::Stranger))
        .into();
    assert!(strangers.iter().all(Seat::has_short_timeouts));
    assert!(!own.has_short_timeouts());
    strangers.truncate(1);
    assert!(!strangers[0].has_short_timeouts(), "few seats are in use");
}

#[test]
fn log_lines_about_held_clients_count_against_their_networks_budget() {
    let (clients, monitor) = (Clients::default(), Monitor::default());
    let note = |address: &str, is_own| {
        let address: IpAddr = address.parse().expect("an address");
        let network = Some(networks::client(address));
        let refusal = LimitReached {
            limit: Limit::PerClient,
            network,
            most: 1,
            wait: None,
        };
        clients.log_refusal(&monitor, "mx", LogClient { address, is_own }, &refusal);
    };
    for n in 0..150 {
        note(&format!("192.0.2.{n}"), false);
    }
    note("198.51.100.1", false);
    note("192.0.2.200", true);
    let held = clients.held();
    let logged: Vec<_> = held
        .iter()
        .filter(|held| held.is_logged)
        .map(|held| network_text(&held.network))
        .collect();
    assert_eq!(
        (held.len(), logged.len()),
        (152, 102),
        "all are listed, and a hundred of one network logged"
    );
    assert!(
        logged.contains(&"198.51.100.1".to_owned()) && logged.contains(&"192.0.2.200".to_owned())
    );
}
