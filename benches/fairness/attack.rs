//! The attacks: the destinations that hang, and the mail that leads to it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use crate::client::{Client, INSIDE, stranger};
use crate::internet::{Internet, MUTES, SILENT, TAKEN, TARPITS};
use crate::relay::Relay;

type Work<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// One attack.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// The number of sessions that must hang at the same time for the attack to count.
    pub(crate) hangs: usize,
    /// The preparation.
    pub(crate) prepare: for<'a> fn(&'a Relay, &'a Internet) -> Work<'a>,
    /// The attack itself.
    pub(crate) launch: fn(SocketAddr) -> Work<'static>,
}

pub(crate) const ATTACKS: [Attack; 5] = [
    Attack {
        name: "bounces",
        what: "2,400 bounces to 60 domains that take 20 and hang",
        hangs: 100,
        prepare: |_, _| Box::pin(async {}),
        launch: |relay| Box::pin(bounces(relay)),
    },
    Attack {
        name: "silent",
        what: "2,100 messages to 700 silent domains of 10 addresses",
        hangs: 500,
        prepare: |_, _| Box::pin(async {}),
        launch: |relay| Box::pin(to_each(relay, "silent", 700, 3)),
    },
    Attack {
        name: "worked",
        what: "2,400 messages to 60 domains that had worked",
        hangs: 100,
        prepare: |relay, internet| Box::pin(work(relay, internet, "tarpit", TARPITS)),
        launch: |relay| Box::pin(to_each(relay, "tarpit", TARPITS, 40)),
    },
    Attack {
        name: "mute",
        what: "2,400 messages to 60 that had worked, no last answer",
        hangs: 100,
        prepare: |relay, internet| Box::pin(work(relay, internet, "mute", MUTES)),
        launch: |relay| Box::pin(to_each(relay, "mute", MUTES, 40)),
    },
    Attack {
        name: "many",
        what: "3,000 messages to 3,000 silent domains",
        hangs: 500,
        prepare: |_, _| Box::pin(async {}),
        launch: |relay| Box::pin(to_each(relay, "silent", SILENT, 1)),
    },
];

/// Sends messages of strangers that our mailbox server rejects, so that bounces go to the addresses
/// that the strangers chose.
async fn bounces(relay: SocketAddr) {
    let sessions = (0..24).map(|number| async move {
        let mut client = Client::connect(relay, stranger(number)).await;
        for message in 0..100 {
            let domain = (usize::from(number) * 100 + message) % TARPITS;
            client
                .sends(&format!("x@tarpit{domain}.example"), "nobody@example.com")
                .await;
        }
    });
    futures_util::future::join_all(sessions).await;
}

/// Sends this number of messages to each of the domains, domain after domain.
async fn to_each(relay: SocketAddr, name: &'static str, domains: usize, messages: usize) {
    let sessions = (0..10).map(|session| async move {
        let mut client = Client::connect(relay, INSIDE).await;
        for message in 0..messages {
            for domain in (session..domains).step_by(10) {
                client
                    .sends(
                        "somebody@example.com",
                        &format!("x{message}@{name}{domain}.example"),
                    )
                    .await;
            }
        }
    });
    futures_util::future::join_all(sessions).await;
}

/// Sends each of these domains the [`TAKEN`] messages that it accepts, and waits until it has them.
async fn work(relay: &Relay, internet: &Internet, name: &'static str, domains: usize) {
    to_each(relay.address, name, domains, TAKEN).await;
    while internet.taken() < domains * TAKEN {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
