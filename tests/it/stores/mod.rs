//! The stores that an earlier version left on the disk open in this one, with everything in them.
//!
//! `data/stores` is the folder of the spool and the one of the evidence, as version 0.1.0 wrote
//! them on [`MADE`], and the CSV in which it listed that evidence. [`make::make_stores`] writes such
//! folders anew, with what the tests here expect in them. [`forms`] is about evidence of later forms.

mod export;
mod forms;
mod killed;
mod make;
mod newer;
mod open;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use gatepost::discovery::history::TlsLevel;
use gatepost::relay::tlsrpt::{
    AppliedPolicy, Observation, ReportedPolicy, ResultType, SessionFailure, SessionResult,
};
use gatepost::smtp::address::{Domain, Host, Mailbox, ReversePath};
use gatepost::smtp::envelope::{
    AttemptFailure, BodyType, ClientOrigin, ContentNeeds, Envelope, FailureHistory, Notify,
    Recipient, RecipientState, Ret, TlsRequirement,
};
use gatepost::smtp::reply::{EnhancedStatusCode, Reply, Status};
use gatepost::storage::evidence::{
    AcceptanceRecord, CertificateRecord, DeliveryRecord, DemandOutcome, DemandRecord,
    EvidenceRecord, ExceptionRecord, InboundSession, PolicyRecord, RecordedAssurance,
    RecordedOutcome, SessionRecord, TlsSession, UnmetDemand,
};
use gatepost::telemetry::certificates::WatchedCertificate;
use jiff::Timestamp;

/// The day on which the stores were made. Each test reads them with a clock of that time, or asks
/// for no time at all.
const MADE: &str = "2026-11-30";
/// The last change of the queue before a jump of the clock, and the day of that change.
const BEFORE_JUMP: &str = "2026-10-31T00:00:00Z";
/// The times in the other stores.
const FIRST: &str = "2026-11-20T08:00:00Z";
const LATER: &str = "2026-11-21T09:30:00Z";
const LAST: &str = "2026-11-22T23:59:59Z";

const MTA_STS: &str = "version: STSv1\r\nmode: enforce\r\nmx: mx1.good.example\r\nmx: *.mx.example\r\nmax_age: 31557600\r\n";
const MTA_STS_ID: &str = "20261120T000000";
const RECORDS: &str = "
    _mta-sts.good.example TXT v=STSv1; id=20261120T000000;
    mta-sts.good.example A 127.0.0.1
";
const ISSUER: &str = "CN=Example CA,O=Example Trust";

fn at(text: &str) -> Timestamp {
    text.parse().expect(text)
}

fn host(text: &str) -> Host {
    Host::parse(text).expect(text)
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).expect(text)
}

/// A copy of the stores, which a test may open and change.
fn stores() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    copy(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/stores"),
        folder.path(),
    );
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to)
        .and_then(|()| fs::set_permissions(to, fs::Permissions::from_mode(0o700)))
        .expect("ours");
    for entry in fs::read_dir(from).expect("the test data") {
        let (from, to) = entry
            .map(|entry| (entry.path(), to.join(entry.file_name())))
            .expect("an entry");
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("copied");
        }
    }
}

fn failure(when: &str, status: &str, reply: Option<Reply>) -> AttemptFailure {
    AttemptFailure {
        at: at(when),
        status: EnhancedStatusCode::parse(status).expect(status),
        text: "mx.partner.example[192.0.2.25] said 450 4.2.0 try later".to_owned(),
        explanation: None,
        host: Some("mx.partner.example".to_owned()),
        reply,
    }
}

fn recipient(mailbox: &str, state: RecipientState) -> Recipient {
    Recipient {
        state,
        ..Recipient::new(Mailbox::parse(mailbox).expect(mailbox))
    }
}

/// The messages in the queue, each with its content: a fresh one with every parameter, one that was
/// deferred and is too large for its row, and one whose recipients are held, delivered and failed.
fn messages() -> Vec<(Envelope, Vec<u8>)> {
    let reply = Reply::new(450, Status(2, 0), "try later");
    let mut history = FailureHistory::default();
    history.push(failure(FIRST, "4.4.1", None), 1);
    history.push(failure(LATER, "4.2.0", Some(reply)), 1);

    let notify = Some(Notify::On {
        success: true,
        failure: true,
        delay: false,
    });
    let orcpt = Some("rfc822;anna@partner.example".to_owned());
    let fresh = recipient("anna@partner.example", RecipientState::default());
    let fresh = Envelope {
        body: BodyType::EightBitMime,
        smtputf8: true,
        needs: ContentNeeds {
            eight_bit: true,
            utf8_header: true,
        },
        ret: Some(Ret::Hdrs),
        envid: Some("QQ314159".to_owned()),
        tls: TlsRequirement::Require,
        message_id: Some("<1@sender.example>".into()),
        arrival: Some(inbound().arrival()),
        confidential: true,
        ..Envelope::new(
            sender(),
            vec![Recipient {
                notify,
                orcpt,
                ..fresh
            }],
        )
    };
    let pending = RecipientState::Pending {
        attempts: 2,
        next: Some(at(LAST)),
        history: history.clone(),
        warned: true,
        apart: true,
    };
    let deferred = Envelope {
        tls: TlsRequirement::Relaxed,
        origin: ClientOrigin::Stranger,
        ..Envelope::new(sender(), vec![recipient("bea@partner.example", pending)])
    };
    let held = recipient(
        "carl@partner.example",
        RecipientState::Held {
            attempts: 2,
            history,
        },
    );
    let delivered = recipient("dora@partner.example", RecipientState::Delivered);
    let failed = recipient("emil@partner.example", RecipientState::Failed);
    let failed = Recipient {
        owed: Some(Box::new(failure(LATER, "5.1.1", None))),
        ..failed
    };
    let parts = Envelope::new(ReversePath::Null, vec![held, delivered, failed]);
    vec![
        (
            fresh,
            b"Subject: gr\xc3\xbc\xc3\x9fe\r\n\r\nfresh\r\n".to_vec(),
        ),
        (deferred, b"0123456789abcdef\r\n".repeat(7_300)),
        (parts, b"Subject: parts\r\n\r\nparts\r\n".to_vec()),
    ]
}

fn sender() -> ReversePath {
    ReversePath::parse("sender@sender.example").expect("an address")
}

/// Sessions for the downgrade memory: domain, host, level, issuer, time.
fn sessions() -> [(
    &'static str,
    &'static str,
    TlsLevel,
    Option<&'static str>,
    &'static str,
); 6] {
    [
        (
            "dane.example",
            "mx.dane.example",
            TlsLevel::Dane,
            Some(ISSUER),
            FIRST,
        ),
        (
            "partner.example",
            "mx1.partner.example",
            TlsLevel::Verified,
            Some(ISSUER),
            FIRST,
        ),
        (
            "partner.example",
            "mx1.partner.example",
            TlsLevel::Tls,
            None,
            LATER,
        ),
        (
            "partner.example",
            "mx2.partner.example",
            TlsLevel::Plain,
            None,
            LATER,
        ),
        (
            "trusted.example",
            "mx.trusted.example",
            TlsLevel::Trusted,
            Some(ISSUER),
            LAST,
        ),
        (
            "forgotten.example",
            "mx.forgotten.example",
            TlsLevel::Tls,
            None,
            FIRST,
        ),
    ]
}

/// Observations for the TLS reports of two days.
fn observations(when: &str) -> Vec<Observation> {
    let texts = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>()
    };
    let sts = ReportedPolicy::Sts {
        lines: texts(&[
            "version: STSv1",
            "mode: enforce",
            "mx: mx.partner.example",
            "max_age: 86400",
        ]),
        mx: texts(&["mx.partner.example"]),
    };
    let failed = SessionFailure {
        sending_ip: "192.0.2.1".parse().ok(),
        mx: Some("mx.partner.example".to_owned()),
        helo: Some("mx.partner.example".to_owned()),
        receiving_ip: "2001:db8::25".parse().ok(),
        reason: Some("UnknownIssuer".to_owned()),
        information: Some("the issuer is not trusted".to_owned()),
        ..SessionFailure::new(ResultType::CertificateNotTrusted)
    };
    let seen = |policy: &str, found, session| Observation {
        at: at(when),
        domain: domain("partner.example"),
        policy: AppliedPolicy {
            domain: domain(policy),
            found,
        }
        .into(),
        session,
    };
    vec![
        seen("partner.example", sts.clone(), SessionResult::Succeeded),
        seen("partner.example", sts.clone(), SessionResult::Succeeded),
        seen("partner.example", sts, SessionResult::Failed(failed)),
        seen(
            "mx.partner.example",
            ReportedPolicy::Tlsa(texts(&["3 1 1 00ff"])),
            SessionResult::Succeeded,
        ),
    ]
}

/// The columns that version 0.1.0 did not have, the last ones of a line.
const NEW_COLUMNS: [&str; 5] = [
    "user",
    "mechanism",
    "protocol",
    "source",
    "recipient_connector",
];

/// The lines of a list without the columns that version 0.1.0 did not have.
fn known_columns(list: &[u8]) -> String {
    let list = String::from_utf8_lossy(list);
    let known = list.lines().map(|line| {
        let mut known = line;
        for name in NEW_COLUMNS.iter().rev() {
            let (before, cell) = known.rsplit_once(',').expect("columns");
            assert!(cell.is_empty() || cell == *name, "{line}");
            known = before;
        }
        format!("{known}\r\n")
    });
    known.collect()
}

/// A session in which a message was received.
pub(crate) fn inbound() -> InboundSession {
    InboundSession {
        listener: "mx".to_owned(),
        client: Some("192.0.2.7:4711".to_owned()),
        client_name: Some("client.example".to_owned()),
        via: Some("192.0.2.8:25".to_owned()),
        hello: Some("client.example".to_owned()),
        user: None,
        // As the version before wrote it.
        protocol: None,
        connector: "partner".to_owned(),
        configuration: "c0".repeat(32),
        policy: forced(),
        session: verified(),
        standing: DemandOutcome::Met,
    }
}

fn forced() -> PolicyRecord {
    let wanted = "a certificate for mx.partner.example".to_owned();
    PolicyRecord {
        tls: "forced".to_owned(),
        demands: vec![DemandRecord {
            layer: "connector".to_owned(),
            wanted,
            level: RecordedAssurance::Verified,
        }],
    }
}

fn verified() -> SessionRecord {
    let tls = TlsSession {
        version: "TLSv1.3".to_owned(),
        cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
        key_exchange: Some("X25519MLKEM768".to_owned()),
        client_hello: Some("classical key exchange, without SNI".to_owned()),
        resumed: true,
        authentication: "verified as mx.partner.example".to_owned(),
        matched_name: Some("mx.partner.example".to_owned()),
        certificate: Some(CertificateRecord {
            spki: "sha256:CQkJ".to_owned(),
            names: vec!["mx.partner.example".to_owned()],
            more_names: 2,
            issuer: ISSUER.to_owned(),
            not_after: at("2027-03-01T00:00:00Z"),
            revocation: None,
        }),
    };
    SessionRecord {
        level: RecordedAssurance::Verified,
        no_tls: None,
        tls: Some(tls),
    }
}

fn delivery() -> DeliveryRecord {
    DeliveryRecord {
        queue_id: "0000000000005".to_owned(),
        message_id: Some("<1@sender.example>".to_owned()),
        from: "sender@sender.example".to_owned(),
        to: "anna@partner.example".to_owned(),
        domain: "partner.example".to_owned(),
        attempt: 1,
        connector: "partner".to_owned(),
        recipient_connector: None,
        configuration: "c0".repeat(32),
        policy: Some(forced()),
        exception: None,
        host: Some("mx.partner.example".to_owned()),
        address: Some("192.0.2.25:25".to_owned()),
        protocol: None,
        source: None,
        session: Some(verified()),
        login: None,
        unmet: None,
        downgraded_from: None,
        standing: DemandOutcome::Met,
        outcome: RecordedOutcome::Delivered,
        status: "2.0.0".to_owned(),
        reply: Some("250 2.0.0 OK".to_owned()),
        reason: None,
    }
}

/// The records of mail, with their times.
fn records() -> Vec<(Timestamp, EvidenceRecord)> {
    let accepted = AcceptanceRecord {
        queue_id: "0000000000005".to_owned(),
        message_id: Some("<1@sender.example>".to_owned()),
        from: "sender@sender.example".to_owned(),
        domain: "sender.example".to_owned(),
        to: vec!["anna@partner.example".to_owned()],
        more_to: 3,
        size: 4711,
        by: inbound(),
    };
    let unmet = UnmetDemand {
        layer: "connector".to_owned(),
        wanted: "a certificate for mx.partner.example".to_owned(),
        got: "a certificate for mx.other.example".to_owned(),
    };
    let deferred = DeliveryRecord {
        unmet: Some(unmet),
        session: Some(SessionRecord {
            level: RecordedAssurance::Trusted,
            ..verified()
        }),
        standing: DemandOutcome::Refused,
        outcome: RecordedOutcome::Deferred,
        status: "4.7.5".to_owned(),
        reply: None,
        reason: Some("the certificate has another name".to_owned()),
        ..delivery()
    };
    let clear = SessionRecord {
        level: RecordedAssurance::Clear,
        no_tls: Some("the peer does not offer STARTTLS".to_owned()),
        tls: None,
    };
    let excepted = DeliveryRecord {
        exception: Some(ExceptionRecord {
            until: "2026-12-31".to_owned(),
            reason: "their firewall".to_owned(),
        }),
        session: Some(clear),
        downgraded_from: Some("verified".to_owned()),
        ..delivery()
    };
    let records = [
        (FIRST, EvidenceRecord::Accepted(Box::new(accepted))),
        (FIRST, EvidenceRecord::Delivery(Box::new(deferred))),
        (LATER, EvidenceRecord::Delivery(Box::new(excepted))),
        (LAST, EvidenceRecord::Delivery(Box::new(delivery()))),
    ];
    records
        .into_iter()
        .map(|(when, record)| (at(when), record))
        .collect()
}

fn certificate() -> WatchedCertificate {
    WatchedCertificate {
        names: vec!["mx.partner.example".to_owned()],
        issuer: ISSUER.to_owned(),
        key: "sha256:CQkJ".to_owned(),
        not_after: at("2026-12-10T00:00:00Z"),
    }
}

/// The folder of the stores' spool.
fn spool(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("spool")
}
