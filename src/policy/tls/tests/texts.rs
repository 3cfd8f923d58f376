//! The texts of refusals, the matching of names (RFC 9525) and the parsing of pins.

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

/// The text of a refusal, and its status.
fn refusal(policy: &TlsPolicy, outcome: TlsOutcome) -> (String, Status) {
    match judge(policy, outcome, &[]) {
        Verdict::Refused(refusal) => (refusal.to_string(), refusal.status()),
        other => panic!("{policy:?} does not refuse: {other:?}"),
    }
}

#[test]
fn a_refusal_without_tls_names_the_reason() {
    let policy = forced(TlsVersion::V1_2, Verify::None);
    for (reason, detail, words) in [
        (NoTls::NotWanted, 4, "TLS is switched off for this domain"),
        (NoTls::NotOffered, 4, "the peer does not offer STARTTLS"),
        (
            NoTls::Rejected(Reply::bare(454, "later")),
            4,
            "the peer refused STARTTLS: 454 later",
        ),
        (NoTls::NotUsed, 4, "the client did not issue STARTTLS"),
        (
            NoTls::SpokeBeforeHandshake,
            5,
            "the peer sent clear text after agreeing to STARTTLS",
        ),
        (
            NoTls::Broken("it hung up".to_owned()),
            5,
            "the TLS handshake failed: it hung up",
        ),
    ] {
        let result = refusal(&policy, TlsOutcome::Clear(reason));
        assert_eq!(
            result,
            (format!("TLS is demanded, but {words}"), Status(7, detail))
        );
    }
}

#[test]
fn a_refusal_names_the_first_unmet_part_of_the_demand() {
    let right = || Verify::Name(names(&["mail.example.org"]));
    let wrong = ["mail.example.net", "*.example.net"];
    let any = "TLS with a trusted certificate is demanded, but";
    let ours = "TLS with a trusted certificate for mail.example.org is demanded, but";
    let epoch = Timestamp::UNIX_EPOCH;
    for (version, verify, certificate, words) in [
        (
            TlsVersion::V1_3,
            right(),
            PeerCertificate::Nothing,
            "TLSv1.3 with a trusted certificate for mail.example.org is demanded, but only TLSv1.2 was negotiated"
                .into(),
        ),
        (TlsVersion::V1_2, Verify::Chain, PeerCertificate::Nothing, format!("{any} no certificate was shown")),
        (
            TlsVersion::V1_2,
            Verify::Chain,
            PeerCertificate::Unproved(UncheckableKey::RsaSize(1024)),
            format!("{any} the certificate proves nothing: its key cannot be checked (RSA key of 1024 bits)"),
        ),
        (
            TlsVersion::V1_2,
            Verify::Chain,
            shown(&["mail.example.org"], Err(ChainFault::SelfSigned)),
            format!("{any} the certificate is not trusted: it is self-signed"),
        ),
        (
            TlsVersion::V1_2,
            right(),
            shown(&wrong, Err(ChainFault::Expired(epoch))),
            format!("{ours} the certificate is not trusted: it expired on 1970-01-01T00:00:00Z"),
        ),
        (
            TlsVersion::V1_2,
            right(),
            shown(&wrong, Ok(())),
            format!("{ours} the certificate is for mail.example.net or *.example.net, not for mail.example.org"),
        ),
        (
            TlsVersion::V1_2,
            right(),
            shown(&[], Ok(())),
            format!("{ours} the certificate has no DNS name at all (mail.example.org was wanted)"),
        ),
    ] {
        let outcome = TlsOutcome::Tls(facts(TlsVersion::V1_2, certificate));
        assert_eq!(refusal(&forced(version, verify), outcome), (words, Status(7, 5)));
    }
}

#[test]
fn a_weak_key_exchange_is_refused_whatever_the_identity() {
    let of = |verify, key_exchange| {
        let demand = Demand {
            min_strength: Strength::PostQuantum,
            ..Demand::new(Layer::Connector, verify)
        };
        let certificate = shown(&["mail.example.org"], Ok(()));
        let outcome = TlsOutcome::Tls(TlsFacts {
            key_exchange,
            ..facts(TlsVersion::V1_3, certificate)
        });
        refusal(&TlsPolicy::forced(demand), outcome)
    };
    for (verify, key_exchange, words) in [
        (
            Verify::None,
            Some("X25519"),
            "post-quantum TLS is demanded, but only the key exchange X25519 was negotiated",
        ),
        (
            Verify::Chain,
            None,
            "post-quantum TLS with a trusted certificate is demanded, but the session has no key exchange of its own",
        ),
    ] {
        assert_eq!(of(verify, key_exchange), (words.to_owned(), Status(7, 5)));
    }
}

#[test]
fn a_refusal_names_the_layer_and_its_demand() {
    let of = |layer, verify, certificate| {
        let policy = TlsPolicy::forced(Demand::new(layer, verify));
        refusal(
            &policy,
            TlsOutcome::Tls(facts(
                TlsVersion::V1_3,
                PeerCertificate::Certificate(Box::new(certificate)),
            )),
        )
        .0
    };
    let good = || certificate(&["mail.example.org"], Ok(()));
    let nines = "sha256:CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";
    assert_eq!(
        of(Layer::Connector, Verify::Pin(vec![pin(1)]), good()),
        format!(
            "TLS with the key {} is demanded, but the key is another: {nines}",
            pin(1)
        )
    );
    let held = DaneFacts::Checked {
        records: records(1, DaneScope::Domain),
        result: Err(DaneFault::NoMatch { records: 1 }),
    };
    assert_eq!(
        of(
            Layer::Dane,
            Verify::Dane(records(1, DaneScope::Domain)),
            CertificateFacts {
                dane: held,
                ..good()
            }
        ),
        "TLS with a certificate that the TLSA records of mail.example.org name is demanded by DANE, but the \
         certificate is not the one that the TLSA record names"
    );
    let private = CertificateFacts {
        default_chain: Err(ChainFault::SelfSigned),
        ..good()
    };
    assert_eq!(
        of(
            Layer::MtaSts,
            Verify::Published(host("mail.example.org")),
            private
        ),
        "TLS with a publicly trusted certificate for mail.example.org is demanded by MTA-STS, but the certificate is \
         not trusted: it is self-signed"
    );
    let listed = names(&["*.mail.example.org"]);
    let reason = Unmeetable::NotListed {
        host: host("mx.example.net"),
        listed,
    };
    assert_eq!(
        of(Layer::MtaSts, Verify::Impossible(reason), good()),
        "TLS to a host that the domain's MTA-STS policy lists is demanded by MTA-STS, but mx.example.net is not among the \
         hosts listed: *.mail.example.org"
    );
}

#[test]
fn a_pin_is_parsed_in_the_forms_of_openssl_and_browsers() {
    let hex = "09".repeat(32);
    let colons = vec!["09"; 32].join(":");
    for text in [
        "sha256:CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=".to_owned(),
        format!("sha256:{hex}"),
        format!("SHA256:{colons}"),
    ] {
        assert_eq!(Pin::parse(&text), Ok(pin(9)), "{text}");
        assert_eq!(Pin::parse(&pin(9).to_string()), Ok(pin(9)));
    }
    for (text, fault) in [
        (hex.as_str(), PinError::Kind),
        ("sha1:CQkJ", PinError::Kind),
        ("", PinError::Kind),
        ("sha256:", PinError::Hash),
        (
            "sha256:CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk",
            PinError::Hash,
        ),
        (
            "sha256:zzkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=",
            PinError::Hash,
        ),
        ("sha256:09090909", PinError::Hash),
        ("sha25é:09", PinError::Kind),
    ] {
        assert_eq!(Pin::parse(text), Err(fault), "{text}");
    }
}

#[test]
fn a_refusal_lists_at_most_five_names() {
    let many: Vec<String> = (0..300)
        .map(|number| format!("host{number}.example.net"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let outcome = TlsOutcome::Tls(facts(TlsVersion::V1_3, shown(&many, Ok(()))));
    let policy = forced(TlsVersion::V1_2, Verify::Name(names(&["mail.example.org"])));
    let Verdict::Refused(refusal) = judge(&policy, outcome, &[]) else {
        panic!("no name matches")
    };
    let text = refusal.to_string();
    assert!(
        text.contains("host4.example.net or 295 more") && !text.contains("host5."),
        "{text}"
    );
}

#[test]
fn names_match_as_rfc_9525_says() {
    for (wanted, presented, accepted) in [
        ("mail.example.org", "mail.example.org", true),
        ("mail.example.org", "MAIL.Example.ORG", true),
        ("mail.example.org", "example.org", false),
        ("mail.example.org", "a.mail.example.org", false),
        ("example.org", "mail.example.org", false),
        // A wildcard stands for exactly one label.
        ("mail.example.org", "*.example.org", true),
        ("example.org", "*.example.org", false),
        ("a.mail.example.org", "*.example.org", false),
        ("mail.badexample.org", "*.example.org", false),
        ("mail.example.org", "*.org", false),
        // Names are compared as A-labels, and a wildcard may stand for one.
        ("bücher.example", "xn--bcher-kva.example", true),
        ("xn--bcher-kva.example", "*.example", true),
        ("bücher.example", "bucher.example", false),
        // `*.` in `names` accepts one label below, or the wildcard itself.
        ("*.example.org", "mail.example.org", true),
        ("*.example.org", "*.example.org", true),
        ("*.example.org", "example.org", false),
        ("*.example.org", "a.mail.example.org", false),
        ("*.example.org", "*.mail.example.org", false),
        ("*.mail.example.org", "*.example.org", false),
        ("*.example.org", "mail.example.net", false),
    ] {
        assert_eq!(
            name(wanted).accepts(&name(presented)),
            accepted,
            "{wanted} wanted, {presented} presented"
        );
    }
}

#[test]
fn a_wildcard_must_be_the_complete_left_most_label() {
    for text in [
        "*",
        "*.",
        "m*.example.org",
        "*m.example.org",
        "mail.*.org",
        "*.*.org",
        "**.example.org",
        "*.example.*",
        "",
    ] {
        assert!(NamePattern::parse(text).is_err(), "{text:?} was accepted");
    }
    assert_eq!(name("*.Example.ORG").to_string(), "*.example.org");
}

proptest! {
    #[test]
    fn a_wildcard_stands_for_one_label_whichever_side_has_it(
        labels in prop::collection::vec("[a-z]{1,3}", 1..6),
        dropped in 0..6_usize,
    ) {
        let dropped = dropped.min(labels.len() - 1);
        let (host, base) = (labels.join("."), labels[dropped..].join("."));
        let (exact, wildcard) = (name(&host), name(&format!("*.{base}")));
        prop_assert_eq!(exact.accepts(&wildcard), dropped == 1);
        prop_assert_eq!(wildcard.accepts(&exact), dropped == 1);
        prop_assert_eq!(exact.accepts(&name(&base)), dropped == 0);
        prop_assert!(wildcard.accepts(&wildcard));
    }
}
