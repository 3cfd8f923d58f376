//! Measures the time for which healthy mail waits while other destinations hang: the daemon runs
//! between clients and a small Internet on loopback, with its own name server. In each attack many
//! destinations hang; meanwhile mail for our own mailbox server, for a partner with a connector,
//! and for a new domain must arrive within 5 s. A run in which too few sessions hung fails, since
//! it proves nothing.
//!
//! `cargo bench --bench fairness` runs every attack (a minute each, two and a half at most); `cargo
//! bench --bench fairness -- bounces` runs those whose name begins so. `--profile dev` is
//! sufficient. Exit status 1 means that a message was late or missing, or that too few sessions
//! hung.
//!
//! `internet` has the name server and the hosts, `relay` the daemon, `client` sends mail, and
//! `attack` defines the attacks.

#[path = "fairness/attack.rs"]
mod attack;
#[path = "fairness/client.rs"]
mod client;
#[path = "../tests/it/support/dns.rs"]
mod dns;
#[path = "fairness/internet.rs"]
mod internet;
#[path = "fairness/relay.rs"]
mod relay;

use std::process::ExitCode;
use std::time::Duration;

use attack::{ATTACKS, Attack};
use internet::Internet;
use relay::Relay;

/// The time within which healthy mail must arrive.
const BAR: Duration = Duration::from_secs(5);
/// The number of messages of each kind, one every half second, while enough sessions hang.
const ROUNDS: usize = 60;
/// The maximum number of messages of each kind, even if too few sessions hang.
const ROUNDS_MAX: usize = 180;
const PAUSE: Duration = Duration::from_millis(500);
/// The time after which a message counts as missing.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        // A test runner that runs every target started this.
        println!("run me with: cargo bench --bench fairness");
        return ExitCode::SUCCESS;
    }
    let wanted = arguments.iter().find(|argument| !argument.starts_with('-'));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut kept = true;
    println!(
        "{:<54} {:>13} {:>10} {:>10} {:>10}",
        "longest time to arrival", "hanging", "our own", "partner", "new domain"
    );
    for attack in ATTACKS
        .iter()
        .filter(|attack| wanted.is_none_or(|name| attack.name.starts_with(name.as_str())))
    {
        kept &= runtime.block_on(measure(attack));
    }
    if kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs one attack and prints its line; returns whether every message arrived in time while enough
/// sessions hung.
async fn measure(attack: &Attack) -> bool {
    let internet = Internet::start().await;
    let relay = Relay::start(&internet).await;
    (attack.prepare)(&relay, &internet).await;
    let attacking = tokio::spawn((attack.launch)(relay.address));
    // The rounds in which enough sessions hung, and the smallest number of those sessions.
    let (mut under_attack, mut fewest) = (0, usize::MAX);
    for round in 0..ROUNDS_MAX {
        let to = [
            format!("own{round}@example.com"),
            format!("p{round}@partner.example"),
            format!("n@new{round}.example"),
        ];
        internet.expect(&to);
        for recipient in &to {
            client::send(
                relay.address,
                client::INSIDE,
                "somebody@example.com",
                recipient,
            )
            .await;
        }
        tokio::time::sleep(PAUSE).await;
        let hanging = internet.hanging();
        if hanging >= attack.hangs {
            (under_attack, fewest) = (under_attack + 1, fewest.min(hanging));
        }
        if under_attack == ROUNDS {
            break;
        }
    }
    let times = internet.times(PATIENCE).await;
    attacking.abort();
    let longest = ["own", "p", "n"].map(|kind| longest(&times, kind));
    let cells = longest.map(|longest| match longest {
        Some(longest) => format!(
            "{:.2} s{}",
            longest.as_secs_f64(),
            if longest > BAR { " !" } else { "" }
        ),
        None => "lost !".to_owned(),
    });
    let [own, partner, new] = cells;
    let (is_attack, peak) = (under_attack == ROUNDS, internet.peak());
    let hanging = if is_attack {
        format!("{fewest} to {peak}")
    } else {
        format!("{peak} at most !")
    };
    println!(
        "{:<54} {hanging:>13} {own:>10} {partner:>10} {new:>10}",
        attack.what
    );
    is_attack
        && longest
            .iter()
            .all(|longest| longest.is_some_and(|longest| longest <= BAR))
}

/// Returns the longest time of a kind of message; `None` if one did not arrive.
fn longest(times: &[(String, Option<Duration>)], kind: &str) -> Option<Duration> {
    let is_of_kind = |to: &str| {
        to.trim_end_matches(|c| c != '@')
            .trim_end_matches('@')
            .trim_end_matches(char::is_numeric)
            == kind
    };
    let of_kind = times
        .iter()
        .filter(|(to, _)| is_of_kind(to))
        .map(|(_, time)| *time);
    of_kind.collect::<Option<Vec<_>>>()?.into_iter().max()
}
