//! `--all`: what would fail today, and what will break soon.

use std::time::{Duration, SystemTime};

use rcgen::CertificateParams;
use serde_json::json;

use super::world::{HOP, WHOLE, World, commands, connector, showing, smart};
use crate::support::certificates::self_signed;
use crate::support::peer::{Manner, Peer, Starttls};

const NAME: &str = "tls = \"forced\"\nverify = \"name\"";

/// A certificate that ends so many days and an hour from now.
fn ends_in(days: u64) -> impl FnOnce(&mut CertificateParams) {
    move |params| {
        params.not_after = (SystemTime::now() + Duration::from_secs(days * 86_400 + 3_600)).into();
    }
}

#[tokio::test]
async fn all_partners_that_are_fine_end_with_0_and_opportunistic_ones_are_left_alone() {
    let world = World::new().await;
    let (one, two, lax) = (
        world.good(&[HOP]).await,
        world.good(&[HOP]).await,
        world.good(&[HOP]).await,
    );
    world.write(
        &(smart("one", &["one.example"], one.address.port(), NAME)
            + &smart(
                "two",
                &["two.example"],
                two.address.port(),
                "tls = \"forced\"\nverify = \"none\"",
            )
            + &smart(
                "lax",
                &["lax.example"],
                lax.address.port(),
                "tls = \"opportunistic\"",
            )),
    );
    let answer = world.probe(&["--all"]).await;
    answer
        .ends(0)
        .has("2 probed, 0 would fail today\n")
        .lacks("SOON")
        .lacks("lax");
    assert_eq!(commands(&one).await, [WHOLE]);
    assert_eq!(commands(&two).await, [WHOLE]);
    assert!(commands(&lax).await.is_empty());
}

#[tokio::test]
async fn one_partner_that_fails_makes_it_1_and_is_shown_with_its_reason() {
    let world = World::new().await;
    let (good, bad) = (
        world.good(&[HOP]).await,
        Peer::start(Manner::new(Starttls::NotOffered)).await,
    );
    world.write(
        &(smart("good", &["good.example"], good.address.port(), NAME)
            + &smart("bad", &["bad.example"], bad.address.port(), NAME)),
    );
    let answer = world.probe(&["--all"]).await;
    answer
        .ends(1)
        .has("ok        good.example  \"good\"\n")
        .has("DEFERRED  bad.example   \"bad\"\n    4.7.4 ");
    answer
        .has("the peer does not offer STARTTLS")
        .has("2 probed, 1 would fail today\n");
    let list = world.probe(&["--all", "--json"]).await.ends(1).json();
    let told: Vec<_> = list
        .as_array()
        .expect("an array")
        .iter()
        .map(|probe| (&probe["domain"], &probe["fails"]))
        .collect();
    assert_eq!(
        told,
        [
            (&json!("good.example"), &json!(false)),
            (&json!("bad.example"), &json!(true))
        ]
    );
    assert_eq!(
        commands(&bad).await,
        vec![vec!["EHLO relay.example.com", "QUIT"]; 2]
    );
}

#[tokio::test]
async fn a_certificate_that_expires_soon_is_shown_where_a_demand_depends_on_it() {
    let world = World::new().await;
    let near = world.authority.issue_as(&[HOP], ends_in(12));
    let far = world.authority.issue_as(&[HOP], ends_in(40));
    let pinned = self_signed(&[HOP], ends_in(3));
    for (pair, policy, told) in [
        (&near, NAME, true),
        (&near, "tls = \"forced\"\nverify = \"chain\"", true),
        (&near, "tls = \"forced\"\nverify = \"none\"", false),
        (&far, NAME, false),
        (&pinned, "tls = \"forced\"\nverify = \"none\"", false),
    ] {
        let peer = showing(pair).await;
        world.write(&smart(
            "partner",
            &["partner.example"],
            peer.address.port(),
            policy,
        ));
        let answer = world.probe(&["--all"]).await;
        answer.ends(0);
        if told {
            answer
                .has("SOON: ")
                .has("(connector \"partner\")")
                .has(", in 12 days\n");
            let list = world.probe(&["--all", "--json"]).await.json();
            assert_eq!(list[0]["breaks_soon"][0]["days_left"], 12);
        } else {
            answer.lacks("SOON");
        }
    }
}

#[tokio::test]
async fn our_own_certificate_and_an_exception_that_end_soon_are_shown() {
    let world = World::new().await;
    let files = world
        .authority
        .issue_as(&["relay.example.com"], ends_in(5))
        .write(world.folder.path(), "ours");
    let (certificate, key) = (
        files.certificate.value.display().to_string(),
        files.key.value.display().to_string(),
    );
    let peer = world.good(&[HOP]).await;
    let today = jiff::Timestamp::now()
        .to_zoned_datetime(jiff::tz::TimeZone::UTC)
        .date();
    let until = (0..9).fold(today, |day, _| day.tomorrow().expect("a date"));
    let more = format!(
        "{NAME}\nclient_certificate = \"{certificate}\"\nclient_key = \"{key}\"\n\
         exception = {{ tls = \"opportunistic\", until = \"{until}\", reason = \"a ticket\" }}"
    );
    world.write(&smart(
        "partner",
        &["partner.example"],
        peer.address.port(),
        &more,
    ));
    let answer = world.probe(&["--all"]).await;
    answer.ends(0).has(&format!(
        "SOON: our client certificate (connector \"partner\"), {certificate}, expires "
    ));
    answer
        .has(", in 5 days\n")
        .has(&format!(
            "SOON: the exception of connector \"partner\" ends on {until}, in "
        ))
        .has("TLS is forced again then\n");
    // The hosts of today would not do then.
    let plain = Peer::start(Manner::new(Starttls::NotOffered)).await;
    world.write(&smart(
        "partner",
        &["partner.example"],
        plain.address.port(),
        &more,
    ));
    let answer = world.probe(&["--all"]).await;
    answer
        .ends(0)
        .has("forced again then, and mail for partner.example would not be delivered to its hosts as they are today\n");
    for width in [50, 80] {
        for arguments in [["--all"], ["partner.example"]] {
            let answer = world.probe_within(&width.to_string(), &arguments).await;
            let wide = crate::screens::too_wide(&answer.ends(0).has("SOON: ").out, width);
            assert_eq!(wide, [""; 0], "{}", answer.out);
        }
    }
}

#[tokio::test]
async fn a_partner_in_the_clear_under_an_exception_is_shown_with_what_follows_it() {
    let world = World::new().await;
    let plain = Peer::start(Manner::new(Starttls::NotOffered)).await;
    let until = |day: &str| {
        format!(
            "{NAME}\nexception = {{ tls = \"opportunistic\", until = \"{day}\", reason = \"ticket 7\" }}"
        )
    };
    world.write(&smart(
        "partner",
        &["partner.example"],
        plain.address.port(),
        &until("2099-01-31"),
    ));
    let answer = world.probe(&["--all"]).await;
    answer
        .ends(0)
        .lacks("\nok")
        .has("CLEAR    partner.example  \"partner\"\n    ")
        .has("(exception until 2099-01-31)\n");
    answer.has(
        "LATER    partner.example  \"partner\"\n    after the exception has ended on 2099-01-31: DEFERRED: 4.7.4 ",
    );
    answer.has("1 probed, 0 would fail today, 1 in the clear today, 1 would fail after exceptions have ended\n");
    let list = world.probe(&["--all", "--json"]).await.ends(0).json();
    assert_eq!(
        (&list[0]["outcome"], &list[0]["under_tls"]),
        (&json!("goes_on"), &json!(false))
    );
    assert_eq!(list[0]["exception_until"], "2099-01-31");
    assert_eq!(list[0]["after_exception"]["outcome"], "deferred");
    assert_eq!(list[0]["after_exception"]["failure"]["status"], "4.7.4");
    let answer = world.probe(&["partner.example"]).await;
    answer
        .ends(0)
        .has("IN THE CLEAR")
        .has("The exception until 2099-01-31 allows that (ticket 7).");
    answer.has(
        "After the exception has ended on 2099-01-31:\nMail for partner.example would be DEFERRED:",
    );
    // One that would meet the demand is shown as well, and an exception that has ended is none.
    let good = world.good(&[HOP]).await;
    world.write(&smart(
        "partner",
        &["partner.example"],
        good.address.port(),
        &until("2099-01-31"),
    ));
    let answer = world.probe(&["--all"]).await;
    answer
        .ends(0)
        .has("ok       partner.example")
        .has("ended on 2099-01-31: ok: ")
        .has("0 would fail today\n");
    world.write(&smart(
        "partner",
        &["partner.example"],
        good.address.port(),
        &until("2020-01-31"),
    ));
    world
        .probe(&["--all"])
        .await
        .ends(0)
        .lacks("LATER")
        .lacks("exception");
}

#[tokio::test]
async fn of_patterns_only_smart_hosts_can_be_probed() {
    let world = World::new().await;
    let peer = world.good(&[HOP]).await;
    world.write(
        &(smart(
            "smart",
            &["*.smart.example", "smart.example", "too.example"],
            peer.address.port(),
            NAME,
        ) + &connector("wide", &["*.wide.example"], "tls = \"forced\"")),
    );
    let answer = world.probe(&["--all"]).await;
    answer.ends(0).has("1 probed, 0 would fail today");
    answer.has("the pattern \"*.wide.example\" of connector \"wide\" names no domain to probe: probe one by its name");
    assert_eq!(
        commands(&peer).await,
        [WHOLE],
        "the hosts are the same for all domains of a connector"
    );
    // Without a domain of its own, the host's name will do.
    let peer = world.good(&[HOP]).await;
    world.write(&smart("all", &["*"], peer.address.port(), NAME));
    world
        .probe(&["--all"])
        .await
        .ends(0)
        .has(&format!("ok       {HOP}"));
    world.write(&connector("wide", &["*.wide.example"], "tls = \"forced\""));
    world
        .probe(&["--all"])
        .await
        .ends(0)
        .has("no connector forces TLS for a domain that could be probed\n");
}

#[tokio::test]
async fn many_partners_are_probed_side_by_side() {
    let world = World::new().await;
    let peers: Vec<Peer> =
        futures_util::future::join_all((0..20).map(|_| world.good(&[HOP]))).await;
    let connectors = peers.iter().enumerate().map(|(number, peer)| {
        smart(
            &format!("p{number}"),
            &[&format!("p{number}.example")],
            peer.address.port(),
            NAME,
        )
    });
    world.write(&connectors.collect::<String>());
    world
        .probe(&["--all"])
        .await
        .ends(0)
        .has("20 probed, 0 would fail today\n");
    for peer in &peers {
        assert_eq!(commands(peer).await, [WHOLE]);
    }
}
