//! Tests of command parsing and of the splitting of lines.

use proptest::prelude::*;

use super::*;
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::envelope::{BodyType, Notify, Ret};

fn parse(text: &str) -> Result<Command, CommandError> {
    Command::parse(text.as_bytes())
}

fn code(text: &str) -> String {
    let reply = parse(text).expect_err(text).reply();
    format!(
        "{} {}",
        reply.code(),
        reply.enhanced().expect("every error has a status")
    )
}

#[test]
fn plain_commands_take_any_case_and_trailing_blanks() {
    for (text, command) in [
        ("data", Command::Data),
        ("RsEt  ", Command::Rset),
        ("QUIT", Command::Quit),
        ("QUIT\t \t", Command::Quit),
        (
            "BDAT 86 LAST \t",
            Command::Bdat {
                size: 86,
                last: true,
            },
        ),
        ("NOOP", Command::Noop),
        ("NOOP anything at all", Command::Noop),
        ("STARTTLS", Command::StartTls),
        ("HELP", Command::Help),
        ("HELP MAIL", Command::Help),
        ("VRFY someone", Command::Vrfy),
        ("EXPN list", Command::Expn),
        (
            "BDAT 0 LAST",
            Command::Bdat {
                size: 0,
                last: true,
            },
        ),
        (
            "bdat 86 last",
            Command::Bdat {
                size: 86,
                last: true,
            },
        ),
        (
            "BDAT 86",
            Command::Bdat {
                size: 86,
                last: false,
            },
        ),
    ] {
        assert_eq!(parse(text), Ok(command), "{text}");
    }
}

#[test]
fn commands_without_argument_reject_one() {
    for text in [
        "DATA x",
        "STARTTLS foo",
        "QUIT foo",
        "RSET foo",
        "VRFY",
        "EXPN",
        "EHLO",
        "HELO \t",
    ] {
        assert_eq!(code(text), "501 5.5.4", "{text}");
    }
    for text in [
        "",
        " NOOP",
        "LHLO x",
        "NOOPS",
        "FOO",
        "GETS x",
        "NOOP\u{e9}",
    ] {
        assert_eq!(code(text), "500 5.5.2", "{text}");
    }
}

#[test]
fn another_protocol_ends_the_session() {
    for line in [
        &b"GET / HTTP/1.1"[..],
        b"post /upload HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"CONNECT relay.example.com:25",
        b"PROPFIND /x HTTP/1.1",
        b"Host: relay.example.com",
        b"X-Field:",
        b"--boundary",
        b"{\"json\": 1}",
        b"\x16\x03\x01\x02\0\x01",
        b"220 mx.example.org ESMTP",
        b".",
        b"\xff\xfb\x1f",
    ] {
        let fault = Command::parse(line).expect_err("no command");
        assert_eq!(
            (fault.reply().to_string().get(..9), fault.is_fatal()),
            (Some("554 5.5.1"), true),
            "{line:?}"
        );
    }
    assert_eq!(
        super::split_line(b"POST /\n"),
        CommandLine::Invalid(CommandError::NotSmtp, 7),
        "whatever else is wrong with it"
    );
    for text in [
        "MAIL FROM:x",
        "RCPT TO : x",
        "XFOO a:b",
        " GET /",
        "NOOP\u{e9}",
        "",
    ] {
        assert!(!parse(text).expect_err(text).is_fatal(), "{text}");
    }
}

#[test]
fn control_characters_are_rejected() {
    for text in [
        "NOOP \0",
        "NOOP\tx",
        "MAIL FROM:<a\u{7f}@b.c>",
        "EHLO a\x1b[31m",
        "NOOP \u{85}",
    ] {
        assert_eq!(code(text), "500 5.5.2", "{text:?}");
    }
    assert_eq!(
        Command::parse(b"MAIL FROM:<\xff@b.c>"),
        Err(CommandError::NotUtf8)
    );
}

#[test]
fn any_printable_name_is_accepted_in_ehlo() {
    for (name, shown) in [
        ("mail.example.org", "mail.example.org"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
        ("my_host", "my_host"),
        ("-", "-"),
        (
            "HP LaserJet (2nd floor)",
            "HP%20LaserJet%20%282nd%20floor%29",
        ),
        ("100%;\r", "100%25%3B%0D"),
        ("b\u{fc}ro", "b%C3%BCro"),
    ] {
        if !name.contains('\r') {
            assert_eq!(
                parse(&format!("EHLO  {name} \t")),
                Ok(Command::Ehlo(ClientName(name.into())))
            );
        }
        assert_eq!(ClientName(name.into()).to_string(), shown);
    }
    assert_eq!(code(&format!("EHLO {}", "x".repeat(256))), "501 5.5.4");
    for name in ["a\tb", "a\u{85}b", "a\u{7f}"] {
        assert_eq!(code(&format!("HELO {name}")), "500 5.5.2", "{name:?}");
    }
}

#[test]
fn tolerated_syntax_of_devices_parses_like_the_standard_form() {
    let Ok(Command::Mail(mail)) =
        parse("MAIL FROM:scanner@example.org  SIZE=1000   BODY=8BITMIME\t")
    else {
        panic!("rejected");
    };
    assert_eq!(mail.reverse_path.to_string(), "scanner@example.org");
    assert_eq!((mail.size, mail.body), (Some(1000), BodyType::EightBitMime));
    for (text, path) in [
        ("RCPT TO:b@example.net", "b@example.net"),
        ("RCPT  TO:  <b@example.net>  NOTIFY=NEVER", "b@example.net"),
        (
            "RCPT TO: \"b >c\"@example.net NOTIFY=NEVER",
            "\"b >c\"@example.net",
        ),
        ("RCPT TO:postmaster", "postmaster"),
        ("RCPT TO:<root>", "root"),
        ("RCPT TO:<\"a b\">", "\"a b\""),
        ("RCPT TO:<name.@example.net>", "name.@example.net"),
        (
            "RCPT TO:<a..b@mail_1.example.net>",
            "a..b@mail_1.example.net",
        ),
    ] {
        let Ok(Command::Rcpt(rcpt)) = parse(text) else {
            panic!("rejected: {text}: {:?}", parse(text))
        };
        assert_eq!(rcpt.forward_path.to_string(), path, "{text}");
    }
    let long = format!("bounce-{}@example.org", "x".repeat(200));
    assert!(parse(&format!("MAIL FROM:<{long}>")).is_ok());
    let Ok(Command::Mail(mail)) = parse("MAIL FROM:<a@b.c> ENVID=a+2b+5F") else {
        panic!("rejected")
    };
    assert_eq!(
        mail.envid.as_deref(),
        Some("a+2b+5F"),
        "passed on as it came"
    );
    let Ok(Command::Rcpt(rcpt)) = parse("RCPT TO:<a@b.c> ORCPT=rfc822;a+3db@b.c") else {
        panic!("rejected")
    };
    assert_eq!(rcpt.orcpt.as_deref(), Some("rfc822;a+3db@b.c"));
}

#[test]
fn mail_keeps_its_parameters() {
    let Ok(Command::Mail(mail)) = parse(
        "mail from:<\"a>b\"@example.org> size=1000 BODY=8bitmime SMTPUTF8 RET=hdrs ENVID=QQ+2B314159",
    ) else {
        panic!("rejected");
    };
    assert_eq!(mail.reverse_path.to_string(), "\"a>b\"@example.org");
    assert_eq!(
        (mail.size, mail.body, mail.smtputf8),
        (Some(1000), BodyType::EightBitMime, true)
    );
    assert_eq!(
        (mail.ret, mail.envid.as_deref()),
        (Some(Ret::Hdrs), Some("QQ+2B314159"))
    );
    let Ok(Command::Mail(mail)) = parse("MAIL FROM:<>") else {
        panic!("rejected")
    };
    assert_eq!(
        (mail.reverse_path, mail.body, mail.smtputf8),
        (ReversePath::Null, BodyType::SevenBit, false)
    );
    assert!(
        parse("MAIL FROM: <a@b.c>").is_ok(),
        "a space after the colon is the one liberty"
    );
}

#[test]
fn rcpt_keeps_its_parameters() {
    let Ok(Command::Rcpt(rcpt)) =
        parse("RCPT TO:<b@example.net> NOTIFY=SUCCESS,delay ORCPT=rfc822;b+2Bc@example.net")
    else {
        panic!("rejected");
    };
    assert_eq!(
        rcpt.notify,
        Some(Notify::On {
            success: true,
            failure: false,
            delay: true
        })
    );
    assert_eq!(
        (rcpt.orcpt.as_deref(), rcpt.utf8),
        (Some("rfc822;b+2Bc@example.net"), false)
    );
    let Ok(Command::Rcpt(rcpt)) = parse("RCPT TO:<Postmaster> NOTIFY=NEVER") else {
        panic!("rejected")
    };
    assert_eq!(
        (rcpt.forward_path, rcpt.notify),
        (ForwardPath::Postmaster, Some(Notify::Never))
    );
}

#[test]
fn malformed_paths_are_rejected() {
    for text in [
        "MAIL",
        "MAIL FROM",
        "MAIL FROM:",
        "MAIL FROM: ",
        "MAIL FROM:<a@b.c",
        "MAIL FROM :<a@b.c>",
    ] {
        assert_eq!(code(text), "501 5.5.4", "{text}");
    }
    for text in [
        "MAIL TO:<a@b.c>",
        "MAIL FROM:<a@b.c>SIZE=1",
        "MAIL FROM:<a@b.c> > SIZE=1",
        "RCPT FROM:<a@b.c>",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
    for text in [
        "MAIL FROM:a",
        "MAIL FROM:a@b.c>",
        "MAIL FROM:SIZE=1",
        "MAIL FROM:<a>",
        "MAIL FROM:<a@b@c.d>",
        "MAIL FROM:< a@b.c>",
        "MAIL FROM:<<a@b.c>>",
    ] {
        assert_eq!(
            code(text),
            if text.contains("<<") {
                "501 5.5.4"
            } else {
                "501 5.1.7"
            },
            "{text}"
        );
    }
    for text in [
        "RCPT TO:<>",
        "RCPT TO:<a b>",
        "RCPT TO:<@a.b>",
        "RCPT TO:<a b@c.d>",
    ] {
        assert_eq!(code(text), "501 5.1.3", "{text}");
    }
}

#[test]
fn unknown_repeated_and_malformed_parameters_are_rejected() {
    for parameter in ["X", "SIZE2=1", "NOTIFY=NEVER", "=", "-"] {
        assert_eq!(
            code(&format!("MAIL FROM:<a@b.c> {parameter}")),
            "555 5.5.4",
            "{parameter}"
        );
    }
    for parameter in [
        "SIZE=1 SIZE=1",
        "RET=FULL RET=FULL",
        "SMTPUTF8 SMTPUTF8",
        "BODY=7BIT body=7bit",
        "ENVID=a ENVID=a",
        "SIZE",
        "SIZE=",
        "SIZE=-1",
        "SIZE=+1",
        "SIZE=1a",
        "BODY=BINARYMIME",
        "BODY",
        "RET=NO",
        "SMTPUTF8=1",
        "ENVID=",
        "ENVID=a=b",
        "ENVID=a+0D+0A",
        "ENVID=a+0a",
        "ENVID=a+2g",
        "ENVID=a+2",
    ] {
        assert_eq!(
            code(&format!("MAIL FROM:<a@b.c> {parameter}")),
            "501 5.5.4",
            "{parameter}"
        );
    }
    for parameter in [
        "NOTIFY",
        "NOTIFY=",
        "NOTIFY=NEVER,DELAY",
        "NOTIFY=SUCCESS,",
        "ORCPT=a",
        "ORCPT=;a",
        "ORCPT=a;",
    ] {
        assert_eq!(
            code(&format!("RCPT TO:<a@b.c> {parameter}")),
            "501 5.5.4",
            "{parameter}"
        );
    }
    assert_eq!(
        code(&format!("MAIL FROM:<a@b.c> ENVID={}", "x".repeat(101))),
        "501 5.5.4"
    );
    assert_eq!(
        code("MAIL FROM:<a@b.c> SIZE=99999999999999999999999"),
        "552 5.3.4"
    );
    assert_eq!(code("RCPT TO:<a@b.c> SIZE=1"), "555 5.5.4");
}

#[test]
fn characters_outside_ascii_need_smtputf8() {
    assert_eq!(code("MAIL FROM:<j\u{fc}rgen@b.c>"), "553 5.6.7");
    assert_eq!(code("MAIL FROM:<a@b\u{fc}cher.example>"), "553 5.6.7");
    assert!(parse("MAIL FROM:<j\u{fc}rgen@b.c> SMTPUTF8").is_ok());
    let Ok(Command::Rcpt(rcpt)) = parse("RCPT TO:<a@b\u{fc}cher.example>") else {
        panic!("rejected")
    };
    assert!(rcpt.utf8, "the transaction has to judge it");
    let Ok(Command::Rcpt(rcpt)) = parse("RCPT TO:<a@b.c> ORCPT=utf-8;j\u{fc}@b.c") else {
        panic!("rejected")
    };
    assert!(rcpt.utf8);
}

#[test]
fn a_chunk_without_a_size_is_fatal() {
    for text in [
        "BDAT",
        "BDAT x",
        "BDAT -1",
        "BDAT +1",
        "BDAT 1 LAST x",
        "BDAT 1 2",
        "BDAT  1",
        "BDAT 18446744073709551616",
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.is_fatal(), "{text}");
        assert_eq!(code(text), "501 5.5.4");
    }
    for text in [
        "BDAT\t50 LAST",
        "BDAT 50\tLAST",
        "BDATX 50",
        "bDaT 50 LAST\u{7f}",
    ] {
        assert_eq!(parse(text), Err(CommandError::ChunkSize), "{text:?}");
    }
    assert_eq!(
        Command::parse(b"BDAT 50 LAST\xff"),
        Err(CommandError::ChunkSize)
    );
    assert_eq!(
        split_line(b"bdat 50\nQUIT\r\n"),
        CommandLine::Invalid(CommandError::ChunkSize, 8)
    );
    assert_eq!(
        split_line(b"BDAT 50\rQUIT\r\n"),
        CommandLine::Invalid(CommandError::ChunkSize, 8)
    );
    let long = format!("BDAT 50 LAST{}", " ".repeat(LINE_MAX));
    assert_eq!(
        split_line(long.as_bytes()),
        CommandLine::Invalid(CommandError::ChunkSize, LINE_MAX)
    );
}

#[test]
fn replies_to_errors_are_short_ascii_lines() {
    let text = format!("MAIL FROM:<a@{}> SMTPUTF8", "\u{fc}".repeat(120));
    let error = parse(&text).expect_err("too long a label");
    let mut wire = Vec::new();
    error.reply().write_to(&mut wire);
    assert!(wire.is_ascii() && wire.len() < 512, "{wire:?}");
}

#[test]
fn lines_end_with_crlf_alone() {
    assert_eq!(split_line(b""), CommandLine::Partial);
    assert_eq!(split_line(b"NOOP\r"), CommandLine::Partial);
    assert_eq!(
        split_line(b"NOOP\r\nQUIT\r\n"),
        CommandLine::Complete(b"NOOP", 6)
    );
    assert_eq!(
        split_line(b"NOOP\nQUIT\r\n"),
        CommandLine::Invalid(CommandError::BareLf, 5)
    );
    assert_eq!(
        split_line(b"NOOP\rQUIT\r\n"),
        CommandLine::Invalid(CommandError::BareCr, 5)
    );
    assert_eq!(
        split_line(b"NOOP\r\r\n"),
        CommandLine::Invalid(CommandError::BareCr, 5)
    );
    assert_eq!(skip_line(b"QUIT\r\nNOOP"), (6, true));
    assert_eq!(skip_line(b"QUIT\r"), (4, false));
    assert_eq!(skip_line(b"QUIT\n"), (5, false));
}

#[test]
fn lines_over_the_limit_are_rejected() {
    let fits = format!("{}\r\n", "x".repeat(LINE_MAX - 2));
    assert_eq!(
        split_line(fits.as_bytes()),
        CommandLine::Complete(&fits.as_bytes()[..LINE_MAX - 2], LINE_MAX)
    );
    for extra in 1..4 {
        let long = format!("{}\r\n", "x".repeat(LINE_MAX - 2 + extra));
        let CommandLine::Invalid(CommandError::LineTooLong, used) = split_line(long.as_bytes())
        else {
            panic!("accepted: {extra}")
        };
        assert_eq!(
            skip_line(&long.as_bytes()[used..]),
            (long.len() - used, true),
            "{extra}"
        );
    }
    assert_eq!(split_line(&[b'x'; LINE_MAX - 1]), CommandLine::Partial);
    // The fault does not depend on how much more has arrived.
    let long = format!("{} HTTP/1.1", "x".repeat(LINE_MAX));
    assert_eq!(
        split_line(long.as_bytes()),
        CommandLine::Invalid(CommandError::LineTooLong, LINE_MAX)
    );
}

proptest! {
    #[test]
    fn nothing_makes_the_parser_panic(octets in proptest::collection::vec(any::<u8>(), 0..300), verb in 0..4_usize) {
        let mut text = [&b""[..], b"MAIL FROM:<", b"RCPT TO:<", b"BDAT "][verb].to_vec();
        text.extend(octets);
        let _ = split_line(&text);
        if let Err(error) = Command::parse(&text) {
            let mut wire = Vec::new();
            error.reply().write_to(&mut wire);
            prop_assert!(wire.is_ascii() && wire.len() <= 512);
        }
    }
}
