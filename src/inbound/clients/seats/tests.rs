//! Tests of how seats are given and lost.

use super::*;

/// Ten seats, two of them reserved; three for a client, six for a network.
fn limits() -> ClientLimits {
    ClientLimits { connections_per_network: 6, connections_reserved: 2, ..ClientLimits::of(10, 3) }
}

/// The seats, with the clock in seconds.
#[derive(Default)]
struct Table {
    seats: Seats,
    now: u64,
}

impl Table {
    fn asks(&mut self, address: &str, is_ours: bool, (listener, listener_seats): (&str, usize)) -> Result<Given, Full> {
        let address = address.parse().expect("an address");
        let who = Newcomer { address, is_ours, is_proxy: false, listener: listener.into(), listener_seats };
        self.seats.give(&who, &limits(), Duration::from_secs(self.now))
    }

    fn stranger(&mut self, address: &str) -> Result<Given, Full> {
        self.asks(address, false, ("mx", 8))
    }

    fn ours(&mut self, address: &str) -> Result<Given, Full> {
        self.asks(address, true, ("mx", 8))
    }

    /// Takes the eight seats of strangers, a client each, a second each.
    fn fills(&mut self) -> Vec<Given> {
        let given: Vec<_> = (0..8).map(|n| self.stranger(&format!("10.0.{n}.1")).expect("a seat")).collect();
        for (n, (seat, _)) in (0..).zip(&given) {
            self.seats.brought(*seat, Duration::from_secs(n));
        }
        given
    }
}

fn lost(given: &[Given]) -> Vec<usize> {
    (0..given.len()).filter(|at| given[*at].1.is_cancelled()).collect()
}

#[test]
fn a_client_and_a_network_have_their_share() {
    for (mine, network) in [
        (["192.0.2.1", "192.0.2.1", "192.0.2.1"], "192.0.2.0/24"),
        // One /64, and others of its /56 and of its /48.
        (["2001:db8:1:2301::1", "2001:db8:1:2301::2", "2001:db8:1:2301::3"], "2001:db8:1:2300::/56"),
    ] {
        let mut table = Table::default();
        for address in mine {
            table.stranger(address).expect("a seat");
        }
        assert_eq!(table.stranger(mine[2]).err(), Some(Full::Client));
        for n in 2..5 {
            let address = mine[0].replace("2.1", &format!("2.{n}")).replace("2301", &format!("230{n}"));
            table.stranger(&address).expect("a seat of its network");
        }
        let network: IpNet = network.parse().expect("a network");
        let another = mine[0].replace("2.1", "2.9").replace("2301", "23ff");
        assert_eq!(table.stranger(&another).err(), Some(Full::Network(network)));
        assert!(table.ours(&another).is_ok(), "our own clients are not counted by network");
    }
}

#[test]
fn a_48_is_one_network_however_many_56_it_has() {
    let mut table = Table::default();
    for n in 0..6 {
        table.stranger(&format!("2001:db8:1:{n}00::1")).expect("a seat");
    }
    let network: IpNet = "2001:db8:1::/48".parse().expect("a network");
    assert_eq!(table.stranger("2001:db8:1:700::1").err(), Some(Full::Network(network)));
    assert!(table.stranger("2001:db8:2::1").is_ok());
}

#[test]
fn strangers_cannot_take_the_reserve() {
    let mut table = Table::default();
    let given = table.fills();
    table.now = 7;
    assert_eq!(table.stranger("192.0.2.1").err(), Some(Full::Everyone), "all came within the last eight seconds");
    assert!(table.ours("127.0.0.1").is_ok() && table.ours("127.0.0.2").is_ok());
    assert!(lost(&given).is_empty(), "nobody had to go for it");
    // With the reserve taken, too, a stranger makes room for one of ours, and never one of ours for anybody.
    assert!(table.ours("127.0.0.3").is_ok());
    assert_eq!(lost(&given), [0]);
    assert_eq!(table.stranger("192.0.2.1").err(), Some(Full::Everyone));
    assert_eq!(table.seats.taken(), (10, 7));
}

#[test]
fn the_seat_of_the_longest_without_a_message_goes_to_who_has_none() {
    let mut table = Table::default();
    let given = table.fills();
    table.now = 10;
    let (seat, _) = table.stranger("192.0.2.1").expect("a seat");
    assert_eq!(lost(&given), [0], "its last message is the oldest");
    table.seats.take_back(given[0].0, &limits(), 8);
    assert_eq!(table.seats.taken(), (8, 8), "a seat is given back once");
    table.now = 11;
    assert_eq!(table.stranger("192.0.2.1").err(), Some(Full::Everyone), "and one is enough while others have none");
    table.now = 12;
    assert!(table.stranger("192.0.2.2").is_ok());
    assert_eq!(lost(&given), [0, 1]);
    table.seats.take_back(seat, &limits(), 8);
    assert!(table.stranger("192.0.2.3").is_ok() && lost(&given) == [0, 1], "there was a free one");
}

#[test]
fn who_has_many_loses_them_first() {
    let mut table = Table::default();
    // Older, but one of one.
    let single = table.stranger("10.0.9.1").expect("a seat");
    table.now = 1;
    let many: Vec<_> = ["192.0.2.1"; 3].map(|address| table.stranger(address).expect("a seat")).into();
    for n in 0..4 {
        table.stranger(&format!("10.0.{n}.1")).expect("a seat");
    }
    table.now = 20;
    assert!(table.stranger("10.0.8.1").is_ok());
    assert_eq!(lost(&many).len(), 1);
    table.now = 21;
    assert!(table.stranger("10.0.8.1").is_err(), "two would be as many as it had left");
    assert!(!single.1.is_cancelled() && lost(&many).len() == 1);
}

#[test]
fn a_search_is_not_made_for_everybody_at_once() {
    let mut table = Table::default();
    let given = table.fills();
    table.now = 30;
    assert!(table.stranger("192.0.2.1").is_ok());
    assert_eq!(table.stranger("192.0.2.2").err(), Some(Full::Everyone), "in the same instant");
    assert_eq!(lost(&given), [0]);
}

#[test]
fn a_listener_has_seats_of_its_own() {
    let mut table = Table::default();
    let given: Vec<_> = (0..4).map(|n| table.asks(&format!("10.0.{n}.1"), false, ("mx", 4)).expect("a seat")).collect();
    assert!(table.asks("10.0.9.1", false, ("mx", 4)).is_err());
    assert!(table.seats.are_scarce("mx") && !table.seats.are_scarce("other"));
    let other = table.asks("10.0.9.1", false, ("other", 4)).expect("another listener's");
    assert!(table.asks("127.0.0.1", true, ("mx", 4)).is_ok(), "it binds strangers only");
    table.now = 20;
    assert!(table.asks("10.0.8.1", false, ("mx", 4)).is_ok());
    assert_eq!(lost(&given).len(), 1);
    assert!(!other.1.is_cancelled(), "a seat elsewhere is of no use");
}

#[test]
fn scarcity_begins_at_three_quarters_and_ends_at_half() {
    let mut table = Table::default();
    let mut given: Vec<_> = (0..5).map(|n| table.stranger(&format!("10.0.{n}.1")).expect("a seat")).collect();
    assert!(!table.seats.are_scarce("mx"));
    given.push(table.stranger("10.0.5.1").expect("a seat"));
    assert_eq!(table.seats.short(), ["mx".into()]);
    for (left, is_scarce) in [(5, true), (4, true), (3, false), (2, false)] {
        let (seat, _) = given.pop().expect("one");
        table.seats.take_back(seat, &limits(), 8);
        assert_eq!((table.seats.taken().1, table.seats.are_scarce("mx")), (left, is_scarce));
    }
    for (seat, _) in given {
        table.seats.take_back(seat, &limits(), 8);
    }
    assert!(table.seats.by_network.is_empty() && table.seats.sessions.is_empty(), "nobody is remembered for ever");
}
