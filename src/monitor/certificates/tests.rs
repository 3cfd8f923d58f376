//! When is warned, and of what change, without a clock.

use super::*;

const DAY: i64 = 86_400;

fn at(days: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + days * DAY).expect("a time")
}

fn shown(name: &str, issuer: &str, key: &str, ends: i64) -> Shown {
    Shown { names: vec![name.to_owned()], issuer: issuer.to_owned(), key: key.to_owned(), not_after: at(ends) }
}

fn sighting(shown: &Shown, refused: Option<&str>) -> Sighting<'static> {
    Sighting {
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
    let own = [Own { file: "relay.pem".to_owned(), not_after: at(100) }];
    let mut certificates = Certificates::default();
    let mut warned = Vec::new();
    for day in 60..105 {
        warned.extend(certificates.own_due(&own, at(day)).into_iter().map(|(_, step)| (100 - day, step)));
        assert!(certificates.own_due(&own, at(day)).is_empty(), "twice on one day");
        // A restart in between changes nothing.
        certificates = Certificates::restored(certificates.kept());
    }
    assert_eq!(warned, [(30, 30), (14, 14), (7, 7), (1, 1), (0, 0)]);
}

#[test]
fn a_renewed_certificate_is_warned_of_anew() {
    let mut certificates = Certificates::default();
    let own = |ends| [Own { file: "relay.pem".to_owned(), not_after: at(ends) }];
    assert_eq!(certificates.own_due(&own(10), at(0)), [("relay.pem".to_owned(), 14)]);
    assert!(certificates.own_due(&own(90), at(0)).is_empty());
    assert_eq!(certificates.own_due(&own(90), at(70)), [("relay.pem".to_owned(), 30)]);
}

#[test]
fn a_changed_certificate_that_is_refused_is_told_once() {
    let mut certificates = Certificates::default();
    let (old, new) = (shown("a.example", "CN=One", "k1", 400), shown("b.example", "CN=Two", "k2", 400));
    assert_eq!(certificates.enter(&sighting(&old, None), at(0)), None);
    let changes = certificates.enter(&sighting(&new, Some("name")), at(1)).expect("told at once");
    assert_eq!(changes, "its names were a.example and are b.example; its issuer was CN=One and is CN=Two");
    assert_eq!(certificates.enter(&sighting(&new, Some("name")), at(2)), None, "once");
    let mut certificates = Certificates::restored(certificates.kept());
    assert_eq!(certificates.enter(&sighting(&new, Some("name")), at(3)), None, "nor after a restart");
    let partner = certificates.partners().next().expect("one").3;
    assert_eq!((partner.refused.as_deref(), partner.seen), (Some("name"), at(3)));
}

#[test]
fn a_refusal_without_a_change_and_a_change_without_a_refusal_are_not_told() {
    let mut certificates = Certificates::default();
    let (old, new) = (shown("a.example", "CN=One", "k1", 400), shown("a.example", "CN=Two", "k2", 400));
    assert_eq!(certificates.enter(&sighting(&old, Some("chain")), at(0)), None, "never taken");
    assert_eq!(certificates.enter(&sighting(&old, None), at(0)), None);
    assert_eq!(certificates.enter(&sighting(&old, Some("version")), at(1)), None, "the same certificate");
    assert_eq!(certificates.enter(&sighting(&new, None), at(2)), None, "it is taken");
}

#[test]
fn partners_are_warned_of_until_their_connector_is_no_longer_forced() {
    let mut certificates = Certificates::default();
    certificates.enter(&sighting(&shown("a.example", "CN=One", "k1", 5), None), at(0));
    let due = certificates.partners_due(|_, _| true, at(0));
    assert_eq!(
        due.iter().map(|(connector, host, step, _)| (connector.as_str(), host.as_str(), *step)).collect::<Vec<_>>(),
        [("partner", "mx.partner.example", 7)]
    );
    assert!(certificates.partners_due(|_, _| true, at(0)).is_empty());
    assert!(certificates.partners_due(|_, _| false, at(5)).is_empty());
    assert_eq!(certificates.partners().count(), 0);
}

#[test]
fn the_oldest_partner_goes_where_there_are_too_many() {
    let mut certificates = Certificates::default();
    for host in 0..=i64::try_from(PARTNERS_MAX).expect("a small number") {
        let one = Sighting { host: host.to_string(), ..sighting(&shown("a.example", "CN=One", "k1", 5), None) };
        certificates.enter(&one, at(host));
    }
    assert_eq!(certificates.partners().count(), PARTNERS_MAX);
    assert!(certificates.partners().all(|(_, _, host, _)| host != "0"));
}

/// Whoever writes a partner's domain into MAIL FROM is not the partner for that.
#[test]
fn a_refused_client_from_elsewhere_is_no_sighting_of_the_partner() {
    let mut certificates = Certificates::default();
    let (theirs, strange) = (shown("a.example", "CN=One", "k1", 400), shown("x.example", "CN=Two", "k2", 1));
    let from = |address: &str| Some(address.parse().expect("an address"));
    let inbound = |shown: &Shown, refused, address| Sighting {
        direction: Direction::Inbound,
        from: from(address),
        ..sighting(shown, refused)
    };
    assert_eq!(certificates.enter(&inbound(&strange, Some("name"), "192.0.2.9"), at(0)), None);
    assert_eq!(certificates.partners().count(), 0, "nobody was taken yet");
    assert_eq!(certificates.enter(&inbound(&theirs, None, "192.0.2.1"), at(1)), None);
    assert_eq!(certificates.enter(&inbound(&strange, Some("name"), "192.0.2.9"), at(2)), None);
    assert_eq!(certificates.partners().next().expect("one").3.shown, theirs);
    assert!(certificates.enter(&inbound(&strange, Some("name"), "192.0.2.1"), at(3)).is_some(), "from the partner's");
}
