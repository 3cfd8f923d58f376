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
