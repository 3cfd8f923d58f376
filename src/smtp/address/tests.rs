//! Valid and invalid addresses, and reading back of stored ones.

use proptest::prelude::*;

use super::*;

#[test]
fn a_domain_has_one_spelling() {
    let plain = Domain::parse("Bücher.Example").expect("a U-label domain");
    assert_eq!(plain.as_str(), "xn--bcher-kva.example");
    assert_eq!(
        plain,
        Domain::parse("XN--BCHER-KVA.example").expect("its A-label")
    );
}

#[test]
fn invalid_domains_are_rejected() {
    for text in [
        "",
        ".",
        "a..b",
        "a.",
        ".a",
        "-a.b",
        "a_b-.c",
        "a b",
        "192.0.2.1",
        "a@b",
        &"x".repeat(64),
    ] {
        assert!(Domain::parse(text).is_err(), "{text:?} was accepted");
    }
}

#[test]
fn a_domain_has_no_other_ascii_than_letters_digits_hyphens_and_underscores() {
    for c in ' '..='~' {
        let accepted = Domain::parse(&format!("a{c}b.example")).is_ok();
        assert_eq!(
            accepted,
            c.is_ascii_alphanumeric() || "-_.".contains(c),
            "{c:?}"
        );
    }
    for text in ["mail_1.example", "_a.example", "a_.example", "_.example"] {
        assert_eq!(Domain::parse(text).expect(text).as_str(), text);
    }
    // A character that IDNA maps to a denied one is denied.
    assert!(Domain::parse("a\u{ff0f}b.example").is_err());
}

#[test]
fn below_means_strictly_below_and_at_a_dot() {
    let org = Domain::parse("example.org").expect("valid");
    for (name, below) in [
        ("a.example.org", true),
        ("a.b.example.org", true),
        ("example.org", false),
        ("badexample.org", false),
    ] {
        assert_eq!(
            Domain::parse(name).expect("valid").is_below(&org),
            below,
            "{name}"
        );
    }
}

#[test]
fn mailboxes_keep_their_local_part_as_written() {
    for text in [
        "a.b@example.org",
        "\"a b\"@example.org",
        "\"a\\\"b\"@example.org",
        "user@[192.0.2.1]",
        "user@[IPv6:2001:db8::1]",
        "jürgen@example.org",
        "\"\"@example.org",
        "name.@example.org",
        ".name@example.org",
        "a..b@example.org",
    ] {
        assert_eq!(Mailbox::parse(text).expect(text).to_string(), text);
    }
}

#[test]
fn malformed_mailboxes_are_rejected() {
    for text in [
        "",
        "a",
        "@b.c",
        "a@",
        "a b@c.d",
        "a@b@c.d",
        "\"a@b.c",
        "\"a\"b@c.d",
        "a\r@b.c",
        "\"a\nb\"@c.d",
        "a@[1.2.3]",
        "a@[IPv6:zz]",
        "a@[2001:db8::1]",
        "a@[1.2.3.4",
        "a\u{0}@b.c",
        "\"\\\u{e9}\"@b.c",
    ] {
        assert!(Mailbox::parse(text).is_err(), "{text:?} was accepted");
    }
    assert!(Mailbox::parse(&format!("{}@b.c", "x".repeat(250))).is_ok());
    assert_eq!(
        Mailbox::parse(&format!("{}@b.c", "x".repeat(251))),
        Err(AddressError::TooLong)
    );
    assert_eq!(
        Mailbox::parse(&format!("x@{}.c", "y.".repeat(130))),
        Err(AddressError::TooLong)
    );
}

#[test]
fn paths_have_special_forms() {
    assert_eq!(ReversePath::parse(""), Ok(ReversePath::Null));
    assert_eq!(
        ForwardPath::parse("PostMaster"),
        Ok(ForwardPath::Postmaster)
    );
    assert_eq!(
        ForwardPath::parse("@a.example,@b.example:u@c.example")
            .expect("routed")
            .to_string(),
        "u@c.example"
    );
    for text in [
        "@a.example",
        "@a.example:",
        "@a.example,:u@c.d",
        "@a+b:u@c.d",
    ] {
        assert!(ForwardPath::parse(text).is_err(), "{text:?} was accepted");
    }
}

/// A mailbox whose domain has this many labels of one U-label; the A-label `xn--tda` is five octets
/// longer.
fn widened(local: usize, labels: usize) -> String {
    format!("{}@{}", "a".repeat(local), vec!["\u{fc}"; labels].join("."))
}

#[test]
fn the_limit_applies_to_the_stored_form() {
    let fits = Mailbox::parse(&widened(6, 31)).expect("254 octets");
    assert_eq!(fits.to_string().len(), PATH_MAX);
    assert_eq!(Mailbox::parse(&widened(7, 31)), Err(AddressError::TooLong));
    assert_eq!(
        ReversePath::parse(&widened(7, 31)),
        Err(AddressError::TooLong)
    );
    assert_eq!(
        ForwardPath::parse(&widened(7, 31)),
        Err(AddressError::TooLong)
    );
}

#[test]
fn a_stored_mailbox_is_read_whatever_its_length() {
    let text = format!("{}@{}", "a".repeat(64), ["xn--tda"; 31].join("."));
    let json = format!("\"{text}\"");
    assert_eq!(
        serde_json::from_str::<Mailbox>(&json)
            .expect("a mailbox")
            .to_string(),
        text
    );
    assert_eq!(
        serde_json::from_str::<ReversePath>(&json)
            .expect("a path")
            .to_string(),
        text
    );
    assert_eq!(
        serde_json::from_str::<ReversePath>("\"\"").expect("a path"),
        ReversePath::Null
    );
    for text in ["\"\"", "\"a\"", "\"a@b..c\""] {
        assert!(
            serde_json::from_str::<Mailbox>(text).is_err(),
            "{text} was accepted"
        );
    }
    assert!(serde_json::from_str::<Mailbox>(&format!("\"{}@b.c\"", "a".repeat(65))).is_ok());
}

proptest! {
    #[test]
    fn every_valid_mailbox_can_be_stored_and_read_again(
        local in prop_oneof![
            3 => "[a-z\u{fc}\u{7528}+]{1,30}", 1 => "\"([ -!#-Z^-~\u{fc}]|\\\\[ -~]){0,20}\"", 1 => "[ -~]{0,8}"
        ],
        host in prop_oneof![
            4 => proptest::collection::vec(
                prop_oneof![
                    3 => Just("\u{fc}"), 2 => Just("\u{7528}\u{6237}"), 2 => Just("b"), 1 => Just("STRASSE"),
                    1 => Just("stra\u{df}e"), 1 => Just("xn--bcher-kva"), 1 => Just("\u{ff11}"), 1 => Just("0x1")
                ],
                1..40,
            ).prop_map(|labels| labels.join(".")),
            1 => any::<Ipv4Addr>().prop_map(|address| format!("[{address}]")),
            1 => any::<Ipv6Addr>().prop_map(|address| format!("[ipv6:{address}]")),
        ],
    ) {
        let text = format!("{local}@{host}");
        if let Ok(mailbox) = Mailbox::parse(&text) {
            let kept = mailbox.to_string();
            prop_assert_eq!(Mailbox::parse(&kept), Ok(mailbox.clone()), "{} became {}", text, kept);
            let json = serde_json::to_string(&mailbox).expect("it is text");
            prop_assert_eq!(&serde_json::from_str::<Mailbox>(&json).expect("it is read"), &mailbox);
            let path = serde_json::from_str::<ReversePath>(&json).expect("it is read");
            prop_assert_eq!(path, ReversePath::Mailbox(mailbox));
        }
    }
}
