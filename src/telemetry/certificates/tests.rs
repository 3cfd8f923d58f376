//! Tests of the warnings and their days, with explicit times.

use super::*;

const DAY: i64 = 86_400;

fn at(days: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + days * DAY).expect("a time")
}

fn shown(name: &str, issuer: &str, key: &str, ends: i64) -> WatchedCertificate {
    WatchedCertificate {
        names: vec![name.to_owned()],
        issuer: issuer.to_owned(),
        key: key.to_owned(),
        not_after: at(ends),
    }
}

fn sent_certificate(
    shown: &WatchedCertificate,
    refused: Option<&str>,
) -> PartnerCertificate<'static> {
    PartnerCertificate {
        from: None,
        connector: "partner",
        direction: Direction::Outbound,
        host: "mx.partner.example".to_owned(),
        shown: shown.clone(),
        refused: refused.map(str::to_owned),
    }
}

#[test]
fn each_step_is_warned_at_once() {
    let own = [OwnCertificate {
        file: "relay.pem".to_owned(),
        not_after: at(100),
    }];
    let mut certificates = Certificates::default();
    let mut warned = Vec::new();
    for day in 60..105 {
        warned.extend(
            certificates
                .own_due(&own, at(day))
                .into_iter()
                .map(|(_, _, left)| (100 - day, left)),
        );
        assert!(
            certificates.own_due(&own, at(day)).is_empty(),
            "twice on one day"
        );
        // A restart must not change anything.
        certificates = Certificates::from_stored(certificates.to_stored());
    }
    let days = [30, 14, 7, 1].map(|days| (days, TimeLeft::Days(days)));
    assert_eq!(warned, [&days[..], &[(0, TimeLeft::Expired)]].concat());
}

#[test]
fn a_renewed_certificate_gets_its_own_warnings() {
    let mut certificates = Certificates::default();
    let own = |ends| {
        [OwnCertificate {
            file: "relay.pem".to_owned(),
            not_after: at(ends),
        }]
    };
    let warning = |ends, days| ("relay.pem".to_owned(), at(ends), TimeLeft::Days(days));
    assert_eq!(certificates.own_due(&own(10), at(0)), [warning(10, 10)]);
    assert!(certificates.own_due(&own(90), at(0)).is_empty());
    assert_eq!(certificates.own_due(&own(90), at(70)), [warning(90, 20)]);
}

#[test]
fn a_warning_says_the_remaining_days_and_not_its_step() {
    let end = at(100);
    for (before_the_end, left) in [
        (4 * DAY, TimeLeft::Days(4)),
        (5 * DAY - 1, TimeLeft::Days(4)),
        (DAY, TimeLeft::Days(1)),
        (3_600, TimeLeft::Days(0)),
        (0, TimeLeft::Expired),
        (-DAY, TimeLeft::Expired),
    ] {
        let now = Timestamp::from_second(end.as_second() - before_the_end).expect("a time");
        let own = [OwnCertificate {
            file: "relay.pem".to_owned(),
            not_after: end,
        }];
        assert_eq!(
            Certificates::default().own_due(&own, now),
            [("relay.pem".to_owned(), end, left)]
        );
        let mut certificates = Certificates::default();
        certificates.update_partner(
            &sent_certificate(&shown("a.example", "CN=One", "k1", 100), None),
            at(90),
        );
        let partners = certificates.partners_due(|_, _| true, now);
        assert_eq!(
            partners
                .iter()
                .map(|(_, _, left, _)| *left)
                .collect::<Vec<_>>(),
            [left]
        );
    }
}

#[test]
fn a_partner_that_was_not_seen_for_90_days_is_forgotten() {
    let mut certificates = Certificates::default();
    certificates.update_partner(
        &sent_certificate(&shown("a.example", "CN=One", "k1", 95), None),
        at(0),
    );
    assert_eq!(certificates.partners_due(|_, _| true, at(89)).len(), 1);
    assert_eq!(certificates.partners().count(), 1);
    assert!(certificates.partners_due(|_, _| true, at(90)).is_empty());
    assert_eq!(
        certificates.partners().count(),
        0,
        "whatever ends, nobody knows what it shows now"
    );
}

#[test]
fn a_changed_certificate_that_is_refused_is_reported_once() {
    let mut certificates = Certificates::default();
    let (old, new) = (
        shown("a.example", "CN=One", "k1", 400),
        shown("b.example", "CN=Two", "k2", 400),
    );
    assert_eq!(
        certificates.update_partner(&sent_certificate(&old, None), at(0)),
        None
    );
    let changes = certificates
        .update_partner(&sent_certificate(&new, Some("name")), at(1))
        .expect("reported at once");
    assert_eq!(
        changes,
        "its names were a.example and are b.example; its issuer was CN=One and is CN=Two"
    );
    assert_eq!(
        certificates.update_partner(&sent_certificate(&new, Some("name")), at(2)),
        None,
        "once"
    );
    let mut certificates = Certificates::from_stored(certificates.to_stored());
    assert_eq!(
        certificates.update_partner(&sent_certificate(&new, Some("name")), at(3)),
        None,
        "nor after a restart"
    );
    let partner = certificates.partners().next().expect("one").3;
    assert_eq!(
        (partner.refused.as_deref(), partner.seen),
        (Some("name"), at(3))
    );
}

#[test]
fn a_refusal_alone_and_a_change_alone_are_not_reported() {
    let mut certificates = Certificates::default();
    let (old, new) = (
        shown("a.example", "CN=One", "k1", 400),
        shown("a.example", "CN=Two", "k2", 400),
    );
    assert_eq!(
        certificates.update_partner(&sent_certificate(&old, Some("chain")), at(0)),
        None,
        "never taken"
    );
    assert_eq!(
        certificates.update_partner(&sent_certificate(&old, None), at(0)),
        None
    );
    assert_eq!(
        certificates.update_partner(&sent_certificate(&old, Some("version")), at(1)),
        None,
        "the same certificate"
    );
    assert_eq!(
        certificates.update_partner(&sent_certificate(&new, None), at(2)),
        None,
        "it is taken"
    );
}

#[test]
fn partners_of_connectors_that_no_longer_force_tls_are_forgotten() {
    let mut certificates = Certificates::default();
    certificates.update_partner(
        &sent_certificate(&shown("a.example", "CN=One", "k1", 5), None),
        at(0),
    );
    let due = certificates.partners_due(|_, _| true, at(0));
    assert_eq!(
        due.iter()
            .map(|(connector, host, left, _)| (connector.as_str(), host.as_str(), *left))
            .collect::<Vec<_>>(),
        [("partner", "mx.partner.example", TimeLeft::Days(5))]
    );
    assert!(certificates.partners_due(|_, _| true, at(0)).is_empty());
    assert!(certificates.partners_due(|_, _| false, at(5)).is_empty());
    assert_eq!(certificates.partners().count(), 0);
}

#[test]
fn the_partner_seen_longest_ago_makes_way_for_a_new_one() {
    let mut certificates = Certificates::default();
    for host in 0..=i64::try_from(PARTNERS_MAX).expect("a small number") {
        let one = PartnerCertificate {
            host: host.to_string(),
            ..sent_certificate(&shown("a.example", "CN=One", "k1", 5), None)
        };
        certificates.update_partner(&one, at(host));
    }
    assert_eq!(certificates.partners().count(), PARTNERS_MAX);
    assert!(certificates.partners().all(|(_, _, host, _)| host != "0"));
}

/// Anybody can write a partner's domain into MAIL FROM.
#[test]
fn a_refused_client_from_elsewhere_is_not_taken_for_the_partner() {
    let mut certificates = Certificates::default();
    let (theirs, strange) = (
        shown("a.example", "CN=One", "k1", 400),
        shown("x.example", "CN=Two", "k2", 1),
    );
    let from = |address: &str| Some(address.parse().expect("an address"));
    let inbound = |shown: &WatchedCertificate, refused, address| PartnerCertificate {
        direction: Direction::Inbound,
        from: from(address),
        ..sent_certificate(shown, refused)
    };
    assert_eq!(
        certificates.update_partner(&inbound(&strange, Some("name"), "192.0.2.9"), at(0)),
        None
    );
    assert_eq!(certificates.partners().count(), 0, "nobody was taken yet");
    assert_eq!(
        certificates.update_partner(&inbound(&theirs, None, "192.0.2.1"), at(1)),
        None
    );
    assert_eq!(
        certificates.update_partner(&inbound(&strange, Some("name"), "192.0.2.9"), at(2)),
        None
    );
    assert_eq!(certificates.partners().next().expect("one").3.shown, theirs);
    assert!(
        certificates
            .update_partner(&inbound(&strange, Some("name"), "192.0.2.1"), at(3))
            .is_some(),
        "from the partner's"
    );
}
