//! Tests of valid and invalid policy bodies (RFC 8461 §3.2) and of the comparison with MX hosts
//! (§4.1).

use proptest::prelude::*;

use super::*;

const EXAMPLE: &str = "version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\nmx: backupmx.example.com\nmax_age: 604800\n";

fn parse(body: &str) -> Result<PolicyTerms, PolicyFault> {
    PolicyTerms::parse(body.as_bytes())
}

fn patterns(terms: &PolicyTerms) -> Vec<String> {
    terms.mx.iter().map(ToString::to_string).collect()
}

/// Returns the example policy with one part replaced.
fn with(from: &str, to: &str) -> String {
    assert!(EXAMPLE.contains(from), "{from}");
    EXAMPLE.replace(from, to)
}

#[test]
fn the_example_of_rfc_8461_is_parsed() {
    for body in [
        EXAMPLE.to_owned(),
        EXAMPLE.replace('\n', "\r\n"),
        EXAMPLE.trim_end().to_owned(),
    ] {
        let terms = parse(&body).expect(&body);
        assert_eq!((terms.mode, terms.max_age), (MtaStsMode::Enforce, 604_800));
        assert_eq!(
            patterns(&terms),
            ["mail.example.com", "*.example.net", "backupmx.example.com"]
        );
    }
}

#[test]
fn optional_space_is_accepted() {
    let terms =
        parse("version:STSv1 \nmode:\ttesting\t\nmx:   MX.Example.ORG  \nmax_age:0\n\n\r\n")
            .expect("a policy");
    assert_eq!(
        (terms.mode, terms.max_age, patterns(&terms)),
        (MtaStsMode::Testing, 0, vec!["mx.example.org".to_owned()])
    );
}

#[test]
fn of_repeated_fields_the_first_counts_but_all_mx() {
    let body = "max_age: 1\nmode: testing\nversion: STSv1\nmx: a.example\nmode: enforce\nmax_age: x\nversion: STSv9\nmx: b.example";
    let terms = parse(body).expect("a policy");
    assert_eq!(
        (terms.mode, terms.max_age, patterns(&terms).len()),
        (MtaStsMode::Testing, 1, 2)
    );
}

#[test]
fn unknown_fields_are_ignored() {
    for field in [
        "foo: bar",
        "x-1.y_z: a b: c",
        "MtaStsMode: none",
        "MX: other.example",
        "empty:",
        "größe: 1",
    ] {
        let read = parse(&format!("{field}\n{EXAMPLE}"));
        assert_eq!(read.is_ok(), field.is_ascii(), "{field}: {read:?}");
        if let Ok(terms) = read {
            assert_eq!(
                (terms.mode, terms.mx.len()),
                (MtaStsMode::Enforce, 3),
                "{field}"
            );
        }
    }
}

#[test]
fn only_mode_none_needs_no_mx() {
    let without = |mode: &str| parse(&format!("version: STSv1\nmode: {mode}\nmax_age: 86400\n"));
    assert_eq!(without("none").expect("a policy").mode, MtaStsMode::None);
    for mode in ["enforce", "testing"] {
        assert_eq!(without(mode), Err(PolicyFault::Missing("mx")));
    }
}

#[test]
fn a_missing_field_is_named() {
    for (line, field) in [
        ("version: STSv1\n", "version"),
        ("mode: enforce\n", "mode"),
        ("max_age: 604800\n", "max_age"),
    ] {
        assert_eq!(parse(&with(line, "")), Err(PolicyFault::Missing(field)));
    }
    assert_eq!(parse(""), Err(PolicyFault::Missing("version")));
}

#[test]
fn a_wrong_value_is_named_with_its_line() {
    let value = |line, field, value: &str| {
        Err(PolicyFault::Value {
            line,
            field,
            value: value.to_owned(),
        })
    };
    assert_eq!(parse(&with("STSv1", "STSv2")), value(1, "version", "STSv2"));
    assert_eq!(parse(&with("STSv1", "stsv1")), value(1, "version", "stsv1"));
    assert_eq!(
        parse(&with("enforce", "Enforce")),
        value(2, "mode", "Enforce")
    );
    for age in [
        "31557601",
        "99999999999",
        "-1",
        "+1",
        "1d",
        "",
        "00000000001",
    ] {
        assert_eq!(
            parse(&with("604800", age)),
            value(6, "max_age", age),
            "{age}"
        );
    }
    assert_eq!(
        parse(&with("604800", "31557600"))
            .expect("the greatest")
            .max_age,
        31_557_600
    );
}

/// RFC 8461 §3.2: an invalid `mx` value is skipped, and the other lines count. The value stays in
/// the policy as written, for reports and so that a policy without a valid line keeps its meaning
/// after a restart.
#[test]
fn an_invalid_mx_line_matches_no_host_and_the_others_count() {
    for mx in [
        "*",
        "*.",
        "mail.*.com",
        "*example.com",
        ".example.com",
        "192.0.2.1",
        "[192.0.2.1]",
        "2001:db8::1",
        "a b",
        "bücher.example",
        "xn--a.example",
        "mx.example.",
        "mail.example.com.",
        "",
    ] {
        let body = with("mail.example.com", mx);
        let read = MtaStsPolicy {
            terms: parse(&body).expect(mx),
            ..policy(&["mail.example.com"])
        };
        assert_eq!(read.terms.lines().join("\n") + "\n", body, "{mx}");
        assert_eq!(
            parse(&read.terms.lines().join("\n")),
            Ok(read.terms.clone()),
            "{mx}"
        );
        assert_eq!(
            read.mx().map(ToString::to_string).collect::<Vec<_>>(),
            ["*.example.net", "backupmx.example.com"]
        );
        assert_eq!(read.mx_lines()[0], mx);
        for (host, listing) in [
            ("backupmx.example.com", Listing::Listed),
            ("a.example.net", Listing::Listed),
            ("mail.example.com", Listing::NotListed),
            ("mx.example", Listing::NotListed),
        ] {
            assert_eq!(
                evaluate(&read, &Domain::parse(host).expect("a domain")),
                listing,
                "{mx}: {host}"
            );
        }
    }
}

#[test]
fn a_policy_without_a_valid_mx_line_lists_no_host() {
    for mode in ["enforce", "testing"] {
        let terms = parse(&format!(
            "version: STSv1\nmode: {mode}\nmx: 192.0.2.1\nmx:\nmax_age: 10\n"
        ));
        let read = MtaStsPolicy {
            terms: terms.expect("a policy"),
            ..policy(&["mail.example.com"])
        };
        assert_eq!(
            (
                read.mode().as_str(),
                read.mx().count(),
                read.mx_lines().len()
            ),
            (mode, 0, 2)
        );
        assert_eq!(
            evaluate(&read, &Domain::parse("mail.example.com").expect("a domain")),
            Listing::NotListed
        );
    }
}

#[test]
fn malformed_policies_are_rejected() {
    assert!(matches!(
        parse("<!DOCTYPE html>\n<html>"),
        Err(PolicyFault::Line { line: 1, .. })
    ));
    assert!(matches!(
        parse(&format!("\u{feff}{EXAMPLE}")),
        Err(PolicyFault::Line { line: 1, .. })
    ));
    assert!(matches!(
        parse(&with("mode: enforce", "mode : enforce")),
        Err(PolicyFault::Line { line: 2, .. })
    ));
    assert!(matches!(
        parse(&with("mode: enforce", "mode: enf\u{0}rce")),
        Err(PolicyFault::Line { line: 2, .. })
    ));
    assert!(matches!(
        parse(&with("mode: enforce\n", "mode: enforce\r")),
        Err(PolicyFault::Line { line: 2, .. })
    ));
    assert_eq!(
        PolicyTerms::parse(b"version: STSv1\nx: \xff\n"),
        Err(PolicyFault::NotUtf8)
    );
}

#[test]
fn the_limit_is_64_kib() {
    let padded = |length: usize| format!("{EXAMPLE}x: {}", "y".repeat(length - EXAMPLE.len() - 3));
    assert!(parse(&padded(BODY_MAX)).is_ok());
    assert_eq!(parse(&padded(BODY_MAX + 1)), Err(PolicyFault::TooLong));
}

#[test]
fn the_lines_of_a_policy_parse_again() {
    let terms = parse(&format!("x: y\n{}", EXAMPLE.replace('\n', "\r\n"))).expect("a policy");
    assert_eq!(terms.lines().join("\n") + "\n", EXAMPLE);
}

fn policy(mx: &[&str]) -> MtaStsPolicy {
    let lines = mx
        .iter()
        .map(|mx| format!("mx: {mx}"))
        .collect::<Vec<_>>()
        .join("\n");
    MtaStsPolicy {
        domain: Domain::parse("example.com").expect("a domain"),
        id: PolicyId::parse("1").expect("an id"),
        terms: parse(&format!(
            "version: STSv1\nmode: enforce\nmax_age: 10\n{lines}"
        ))
        .expect("a policy"),
        fetched: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn a_host_is_listed_by_its_name_or_by_one_label() {
    let policy = policy(&[
        "mail.example.com",
        "*.Example.NET",
        "*.xn--bcher-kva.example",
        "mx_1.example.org",
        "*.a_b.example.org",
    ]);
    for (mx, listing) in [
        ("MX_1.example.org", Listing::Listed),
        ("mail_2.a_b.example.org", Listing::Listed),
        ("mx_2.example.org", Listing::NotListed),
        ("mail.example.com", Listing::Listed),
        ("MAIL.EXAMPLE.COM", Listing::Listed),
        ("a.example.net", Listing::Listed),
        ("mx.bücher.example", Listing::Listed),
        ("a.b.example.net", Listing::NotListed),
        ("example.net", Listing::NotListed),
        ("example.com", Listing::NotListed),
        ("other.example.com", Listing::NotListed),
        ("x.mail.example.com", Listing::NotListed),
        ("aexample.net", Listing::NotListed),
    ] {
        assert_eq!(
            evaluate(&policy, &Domain::parse(mx).expect(mx)),
            listing,
            "{mx}"
        );
    }
}

#[test]
fn a_policy_expires_max_age_after_it_was_fetched() {
    let policy = policy(&["mail.example.com"]);
    assert_eq!(
        policy.expires(),
        Timestamp::from_second(10).expect("a time")
    );
    let late = MtaStsPolicy {
        fetched: Timestamp::MAX,
        ..policy
    };
    assert_eq!(late.expires(), Timestamp::MAX);
}

proptest! {
    #[test]
    fn no_body_panics_and_parsed_policies_parse_again(body in "(version: STSv1|mode: none|mx: [*.a-z]{0,9}|max_age: [0-9]{0,12}|[ -~]{0,9}|\r|\n|:){0,12}") {
        if let Ok(terms) = PolicyTerms::parse(body.as_bytes()) {
            prop_assert_eq!(PolicyTerms::parse(terms.lines().join("\n").as_bytes()), Ok(terms));
        }
    }
}
