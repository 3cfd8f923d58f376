//! Tests of granting and losing seats.

use tokio::sync::oneshot;

use super::*;
use crate::relay::inbound::clients::table::Seat;

/// Returns limits of ten seats, two of them reserved; three for a client, six for a network.
fn limits() -> ClientLimits {
    ClientLimits {
        connections_per_network: 6,
        connections_reserved: 2,
        ..ClientLimits::of(10, 3)
    }
}

fn seat_request(
    address: &str,
    kind: ClientKind,
    (listener, listener_seats): (&str, usize),
) -> SeatRequest {
    let address = address.parse().expect("an address");
    SeatRequest {
        address,
        kind,
        listener: listener.into(),
        listener_seats,
    }
}

/// The table of seats, with the time in seconds.
#[derive(Default)]
struct SeatTable {
    seats: Seats<Seat>,
    now: u64,
}

impl SeatTable {
    fn asks(
        &mut self,
        address: &str,
        is_ours: bool,
        (listener, listener_seats): (&str, usize),
    ) -> Result<GrantedSeat, NoSeat> {
        let kind = if is_ours {
            ClientKind::Own
        } else {
            ClientKind::Stranger
        };
        self.seats.give(
            &seat_request(address, kind, (listener, listener_seats)),
            &limits(),
            Duration::from_secs(self.now),
        )
    }

    /// Lets a stranger wait and returns the receiver of its seat, or `None` if it may not wait.
    fn waits(&mut self, address: &str, listener: (&str, usize)) -> Option<oneshot::Receiver<Seat>> {
        let (grant, granted) = oneshot::channel();
        let request = seat_request(address, ClientKind::Stranger, listener);
        let served = self.seats.last_served(request.address);
        self.seats
            .queue
            .push(
                WaitingClient {
                    request,
                    limits: limits(),
                    grant,
                },
                served,
            )
            .map(|_| granted)
    }

    /// Gives seats to waiting clients, and returns their addresses.
    fn serves(&mut self) -> Vec<String> {
        let served = self.seats.serve(Duration::from_secs(self.now));
        served
            .into_iter()
            .map(|(waiter, _)| waiter.request.address.to_string())
            .collect()
    }

    fn stranger(&mut self, address: &str) -> Result<GrantedSeat, NoSeat> {
        self.asks(address, false, ("mx", 8))
    }

    fn ours(&mut self, address: &str) -> Result<GrantedSeat, NoSeat> {
        self.asks(address, true, ("mx", 8))
    }

    /// Gives the eight seats of strangers to eight clients, which are active one second after the
    /// other.
    fn fills(&mut self) -> Vec<GrantedSeat> {
        let given: Vec<_> = (0..8)
            .map(|n| self.stranger(&format!("10.0.{n}.1")).expect("a seat"))
            .collect();
        for (n, (seat, _)) in (0..).zip(&given) {
            self.seats.record_activity(*seat, Duration::from_secs(n));
        }
        given
    }
}

fn lost(given: &[GrantedSeat]) -> Vec<usize> {
    (0..given.len())
        .filter(|at| given[*at].1.is_cancelled())
        .collect()
}

#[test]
fn a_client_and_a_network_have_their_share() {
    for (mine, network) in [
        (["192.0.2.1", "192.0.2.1", "192.0.2.1"], "192.0.2.0/24"),
        // One /64, and others of the same /56.
        (
            [
                "2001:db8:1:2301::1",
                "2001:db8:1:2301::2",
                "2001:db8:1:2301::3",
            ],
            "2001:db8:1:2300::/56",
        ),
    ] {
        let mut table = SeatTable::default();
        for address in mine {
            table.stranger(address).expect("a seat");
        }
        assert_eq!(table.stranger(mine[2]).err(), Some(NoSeat::Client));
        for n in 2..5 {
            let address = mine[0]
                .replace("2.1", &format!("2.{n}"))
                .replace("2301", &format!("230{n}"));
            table.stranger(&address).expect("a seat of its network");
        }
        let network: IpNet = network.parse().expect("a network");
        let another = mine[0].replace("2.1", "2.9").replace("2301", "23ff");
        assert_eq!(
            table.stranger(&another).err(),
            Some(NoSeat::Network(network))
        );
        assert!(
            table.ours(&another).is_ok(),
            "our own clients are not counted by network"
        );
    }
}

#[test]
fn an_ipv6_48_is_one_network() {
    let mut table = SeatTable::default();
    for n in 0..6 {
        table
            .stranger(&format!("2001:db8:1:{n}00::1"))
            .expect("a seat");
    }
    let network: IpNet = "2001:db8:1::/48".parse().expect("a network");
    assert_eq!(
        table.stranger("2001:db8:1:700::1").err(),
        Some(NoSeat::Network(network))
    );
    assert!(table.stranger("2001:db8:2::1").is_ok());
}

#[test]
fn strangers_cannot_take_the_reserve() {
    let mut table = SeatTable::default();
    let given = table.fills();
    table.now = 5;
    assert_eq!(
        table.stranger("192.0.2.1").err(),
        Some(NoSeat::All),
        "all came within the last six seconds"
    );
    assert!(table.ours("127.0.0.1").is_ok() && table.ours("127.0.0.2").is_ok());
    assert!(lost(&given).is_empty(), "nobody had to go for it");
    // With the reserve in use, an own client evicts a stranger. Own clients are never evicted.
    assert!(table.ours("127.0.0.3").is_ok());
    assert_eq!(lost(&given), [0]);
    assert_eq!(table.stranger("192.0.2.1").err(), Some(NoSeat::All));
    assert_eq!(table.seats.counts(), (10, 7));
}

#[test]
fn a_client_without_a_seat_evicts_the_longest_idle_session() {
    let mut table = SeatTable::default();
    let given = table.fills();
    table.now = 10;
    let (seat, _) = table.stranger("192.0.2.1").expect("a seat");
    assert_eq!(lost(&given), [0], "its last message is the oldest");
    table.seats.take_back(given[0].0);
    assert_eq!(table.seats.counts(), (8, 8), "a seat is given back once");
    table.now = 11;
    assert_eq!(
        table.stranger("192.0.2.1").err(),
        Some(NoSeat::All),
        "and one is enough while others have none"
    );
    table.now = 12;
    assert!(table.stranger("192.0.2.2").is_ok());
    assert_eq!(lost(&given), [0, 1]);
    table.seats.take_back(seat);
    assert!(
        table.stranger("192.0.2.3").is_ok() && lost(&given) == [0, 1],
        "there was a free one"
    );
}

#[test]
fn sites_with_many_sessions_are_evicted_first() {
    let mut table = SeatTable::default();
    // This session is older, but the only one of its site.
    let single = table.stranger("10.0.9.1").expect("a seat");
    table.now = 1;
    let many: Vec<_> = ["192.0.2.1"; 3]
        .map(|address| table.stranger(address).expect("a seat"))
        .into();
    for n in 0..4 {
        table.stranger(&format!("10.0.{n}.1")).expect("a seat");
    }
    table.now = 20;
    assert!(table.stranger("10.0.8.1").is_ok());
    assert_eq!(lost(&many).len(), 1);
    table.now = 21;
    assert!(
        table.stranger("10.0.8.1").is_err(),
        "two would be as many as it had left"
    );
    assert!(!single.1.is_cancelled() && lost(&many).len() == 1);
}

#[test]
fn the_size_of_a_site_counts_before_the_idle_time() {
    let mut table = SeatTable::default();
    // This session is the oldest, but the only one of its site.
    let single = table.stranger("10.0.9.1").expect("a seat");
    table.now = 1;
    let many: Vec<_> = (1..5)
        .map(|n| table.stranger(&format!("192.0.2.{n}")).expect("a seat"))
        .collect();
    let few: Vec<_> = (1..4)
        .map(|n| table.stranger(&format!("10.0.{n}.1")).expect("a seat"))
        .collect();
    for now in 20..22 {
        table.now = now;
        assert!(table.stranger(&format!("10.0.{now}.1")).is_ok());
    }
    assert_eq!(
        (lost(&many).len(), lost(&few).len(), single.1.is_cancelled()),
        (2, 0, false)
    );
    // The other two of that site send messages, so the oldest of the other sessions is next.
    table
        .seats
        .record_activity(many[2].0, Duration::from_secs(21));
    table
        .seats
        .record_activity(many[3].0, Duration::from_secs(21));
    table.now = 23;
    assert!(table.stranger("10.0.30.1").is_ok());
    assert!(single.1.is_cancelled() && lost(&many) == [0, 1]);
}

#[test]
fn sites_that_were_never_served_come_first() {
    let mut table = SeatTable::default();
    let given = table.fills();
    let mut granted = Vec::new();
    table.now = 5;
    // The first site had a seat before, the others never; no session has been idle for long enough.
    for address in ["10.0.0.9", "192.0.2.1", "192.0.2.2", "198.51.100.1"] {
        granted.push(table.waits(address, ("mx", 8)).expect("a place"));
    }
    assert!(
        table.waits("192.0.2.1", ("mx", 8)).is_none(),
        "once is enough"
    );
    assert_eq!(table.serves(), Vec::<String>::new());
    table.now = 7;
    assert_eq!(
        table.serves(),
        ["192.0.2.1", "192.0.2.2"],
        "two have been idle for six seconds"
    );
    assert_eq!(lost(&given), [0, 1]);
    table.seats.take_back(given[5].0);
    assert_eq!(table.serves(), ["198.51.100.1"]);
    table.now = 8;
    assert_eq!(table.serves(), ["10.0.0.9"]);
    assert_eq!(
        (lost(&given), table.seats.queue.count()),
        (vec![0, 1, 2], 0)
    );
}

#[test]
fn waiting_clients_of_one_listener_do_not_delay_another() {
    let mut table = SeatTable::default();
    let mx: Vec<_> = (0..2)
        .map(|n| {
            table
                .asks(&format!("10.0.{n}.1"), false, ("mx", 2))
                .expect("a seat")
        })
        .collect();
    let other = table.asks("10.0.9.1", false, ("other", 1)).expect("a seat");
    let _mx = table.waits("192.0.2.1", ("mx", 2)).expect("a place");
    let _other = table.waits("192.0.3.1", ("other", 1)).expect("a place");
    table.seats.take_back(other.0);
    assert_eq!(table.serves(), ["192.0.3.1"]);
    table.seats.take_back(mx[0].0);
    assert_eq!(table.serves(), ["192.0.2.1"]);
}

#[test]
fn a_network_that_reaches_its_limit_leaves_the_queue() {
    let mut table = SeatTable::default();
    let given = table.fills();
    let mut granted: Vec<_> = (1..4)
        .filter_map(|n| table.waits(&format!("192.0.2.{n}"), ("mx", 8)))
        .collect();
    table.now = 20;
    // Meanwhile other clients of its network get seats, and the network may have six.
    for n in 11..16 {
        table.stranger(&format!("192.0.2.{n}")).expect("a seat");
        for lost in lost(&given) {
            table.seats.take_back(given[lost].0);
        }
    }
    assert_eq!(
        (table.serves(), table.seats.queue.count()),
        (vec!["192.0.2.1".to_owned()], 0)
    );
    assert!(
        granted
            .iter_mut()
            .all(|granted| granted.try_recv().is_err())
    );
}

#[test]
fn proxies_and_checks_use_no_seats() {
    let mut table = SeatTable::default();
    let given = table.fills();
    table.now = 20;
    for kind in [ClientKind::Proxy, ClientKind::Check] {
        let request = seat_request("127.0.0.1", kind, ("mx", 8));
        let seats: Vec<_> = (0..9)
            .map(|_| {
                table
                    .seats
                    .give(&request, &limits(), Duration::from_secs(20))
            })
            .collect();
        assert!(seats.iter().all(Result::is_ok), "{kind:?}");
        assert_eq!((lost(&given), table.seats.counts()), (vec![], (8, 8)));
        for (seat, _) in seats.into_iter().flatten() {
            table.seats.take_back(seat);
        }
    }
}

#[test]
fn evictions_stop_while_evicted_sessions_do_not_end() {
    let mut table = SeatTable::default();
    let given = table.fills();
    table.now = 30;
    let more: Vec<_> = (0..4)
        .map(|n| table.stranger(&format!("192.0.{n}.1")).expect("a seat"))
        .collect();
    assert_eq!(lost(&given), [0, 1, 2, 3]);
    assert_eq!(
        table.stranger("198.51.100.1").err(),
        Some(NoSeat::All),
        "four are on their way out"
    );
    for n in 1..3 {
        table.ours(&format!("127.0.0.{n}")).expect("the reserve");
    }
    assert!(
        table.ours("127.0.0.3").is_ok(),
        "our own clients may have one more"
    );
    assert_eq!(table.ours("127.0.0.4").err(), Some(NoSeat::All));
    table.seats.take_back(given[0].0);
    assert!(table.ours("127.0.0.4").is_ok(), "one has ended");
    assert_eq!(table.seats.counts(), (10, 6));
    assert_eq!(lost(&given).len() + lost(&more).len(), 6);
}

#[test]
fn evicted_sessions_must_end_sooner_while_there_are_many() {
    let mut table = SeatTable::default();
    let given = table.fills();
    table.now = 30;
    table.stranger("192.0.2.1").expect("a seat");
    assert_eq!(table.seats.farewell(), Duration::from_secs(2), "one leaves");
    table.stranger("192.0.3.1").expect("a seat");
    assert_eq!(
        table.seats.farewell(),
        Duration::from_millis(250),
        "two leave, of the four that may"
    );
    table.seats.take_back(given[0].0);
    assert_eq!(table.seats.farewell(), Duration::from_secs(2));
}

#[test]
fn evictions_end_scarcity() {
    let mut table = SeatTable::default();
    let given: Vec<_> = (0..6)
        .map(|n| table.stranger(&format!("10.0.{n}.1")).expect("a seat"))
        .collect();
    assert!(table.seats.are_scarce("mx"));
    // Each own client after the fourth evicts a stranger, whose session then ends.
    let changes = table.seats.changes();
    for n in 0..7 {
        table.ours(&format!("127.0.0.{n}")).expect("a seat");
        for (seat, _) in given.iter().filter(|given| given.1.is_cancelled()) {
            table.seats.take_back(*seat);
        }
    }
    assert_eq!(
        (table.seats.counts(), table.seats.are_scarce("mx")),
        ((10, 3), false)
    );
    assert_eq!(
        table.seats.changes(),
        changes + 2,
        "everywhere, and on the listener"
    );
}

#[test]
fn a_listener_has_seats_of_its_own() {
    let mut table = SeatTable::default();
    let given: Vec<_> = (0..4)
        .map(|n| {
            table
                .asks(&format!("10.0.{n}.1"), false, ("mx", 4))
                .expect("a seat")
        })
        .collect();
    assert!(table.asks("10.0.9.1", false, ("mx", 4)).is_err());
    assert!(table.seats.are_scarce("mx") && !table.seats.are_scarce("other"));
    let other = table
        .asks("10.0.9.1", false, ("other", 4))
        .expect("another listener's");
    assert!(
        table.asks("127.0.0.1", true, ("mx", 4)).is_ok(),
        "it binds strangers only"
    );
    table.now = 20;
    assert!(table.asks("10.0.8.1", false, ("mx", 4)).is_ok());
    assert_eq!(lost(&given).len(), 1);
    assert!(!other.1.is_cancelled(), "a seat elsewhere is of no use");
}

/// Both listeners have seats left when all strangers together have none.
#[test]
fn listeners_share_the_seats_that_are_not_reserved() {
    let mut table = SeatTable::default();
    for n in 0..8 {
        let listener = ["mx", "other"][n % 2];
        table
            .asks(&format!("10.0.{n}.1"), false, (listener, 6))
            .expect("a seat");
    }
    for listener in ["mx", "other"] {
        let given = table.asks("192.0.2.1", false, (listener, 6));
        assert_eq!(given.err(), Some(NoSeat::All), "{listener}");
    }
    assert!(table.asks("127.0.0.1", true, ("mx", 6)).is_ok());
}

#[test]
fn scarcity_begins_at_three_quarters_and_ends_at_half() {
    let mut table = SeatTable::default();
    let mut given: Vec<_> = (0..5)
        .map(|n| table.stranger(&format!("10.0.{n}.1")).expect("a seat"))
        .collect();
    assert!(!table.seats.are_scarce("mx"));
    given.push(table.stranger("10.0.5.1").expect("a seat"));
    assert_eq!(table.seats.scarce_listeners(), ["mx".into()]);
    for (left, is_scarce) in [(5, true), (4, true), (3, false), (2, false)] {
        let (seat, _) = given.pop().expect("one");
        table.seats.take_back(seat);
        assert_eq!(
            (table.seats.counts().1, table.seats.are_scarce("mx")),
            (left, is_scarce)
        );
    }
    for (seat, _) in given {
        table.seats.take_back(seat);
    }
    let seats = &table.seats;
    assert!(
        seats.by_network.is_empty() && seats.sessions.is_empty() && seats.by_site.is_empty(),
        "nobody is remembered"
    );
    assert!(
        seats
            .by_listener
            .values()
            .all(|listener| listener.eviction_order.is_empty())
    );
}
