//! The questions of an auditor: a month, a partner, and what went in the clear.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use gatepost::storage::evidence::{
    DeliveryRecord, EvidenceRecord, RecordedAssurance, RecordedOutcome, SessionRecord, TlsSession,
};
use tempfile::TempDir;

use super::daemon::{configure, err, out};
use super::world::{delivery, files, folder, lines, put, write_chain};
use crate::support::relay::program;

/// The name in the certificate of the hospital.
const NAME: &str = "smtp.hospital.example";

/// A delivery to the hospital, verified as this name.
fn verified(name: &str) -> DeliveryRecord {
    let tls = TlsSession {
        version: "TLSv1.3".to_owned(),
        cipher: "TLS13_AES_256_GCM_SHA384".to_owned(),
        key_exchange: Some("X25519MLKEM768".to_owned()),
        client_hello: None,
        resumed: false,
        authentication: format!("verified as {name}"),
        matched_name: Some(name.to_owned()),
        certificate: None,
    };
    let session = SessionRecord {
        level: RecordedAssurance::Verified,
        no_tls: None,
        tls: Some(tls),
    };
    DeliveryRecord {
        session: Some(session),
        ..delivery("hospital.example", "hospital")
    }
}

fn deferred() -> DeliveryRecord {
    let reason = Some("mx.hospital.example: connection refused".to_owned());
    let outcome = RecordedOutcome::Deferred;
    DeliveryRecord {
        session: None,
        outcome,
        status: "4.4.1".to_owned(),
        reply: None,
        reason,
        ..verified(NAME)
    }
}

/// The day of the file, the time and the record.
pub(crate) type Entry = (&'static str, &'static str, EvidenceRecord);

fn entry(day: &'static str, time: &'static str, delivery: DeliveryRecord) -> Entry {
    (day, time, EvidenceRecord::Delivery(Box::new(delivery)))
}

/// November at the hospital, and other mail before, after and beside it.
pub(crate) fn november() -> Vec<Entry> {
    let other_sender = DeliveryRecord {
        from: "doctor@clinic.example".to_owned(),
        ..verified(NAME)
    };
    let begun = EvidenceRecord::Begun {
        gatepost: "0.1.0".to_owned(),
    };
    vec![
        ("2026-10-01", "2026-10-01T08:00:00Z", begun),
        entry(
            "2026-10-02",
            "2026-10-02T08:00:00Z",
            verified("old.hospital.example"),
        ),
        entry(
            "2026-10-30",
            "2026-10-30T08:00:00Z",
            verified("old.hospital.example"),
        ),
        entry(
            "2026-10-31",
            "2026-10-31T23:59:59.999Z",
            verified("old.hospital.example"),
        ),
        entry("2026-11-01", "2026-11-01T00:00:00Z", verified(NAME)),
        entry(
            "2026-11-01",
            "2026-11-01T08:00:00Z",
            delivery("other.example", "internet"),
        ),
        entry("2026-11-15", "2026-11-15T08:00:00Z", deferred()),
        entry("2026-11-15", "2026-11-15T08:30:00Z", verified(NAME)),
        entry("2026-11-20", "2026-11-20T08:00:00Z", other_sender),
        entry("2026-11-30", "2026-11-30T23:59:59.999Z", verified(NAME)),
        entry(
            "2026-12-01",
            "2026-12-01T00:00:00Z",
            verified("new.hospital.example"),
        ),
    ]
}

/// A folder with such a chain, and a configuration with the connectors `hospital` and `empty`.
pub(crate) struct Archive {
    folder: TempDir,
    pub(crate) file: PathBuf,
}

impl Archive {
    pub(crate) fn of(records: &[Entry]) -> Self {
        let folder = folder();
        let connector = |name: &str| {
            format!(
                "[[connector]]\nname = \"{name}\"\ndomains = [\"{name}.example\"]\n[connector.outbound]\ntls = \"off\"\n"
            )
        };
        let file = configure(
            folder.path(),
            "path = \"evidence\"",
            &(connector("hospital") + &connector("empty")),
        );
        let archive = Self { folder, file };
        fs::create_dir(archive.path()).expect("ours");
        write_chain(&archive.path(), records);
        archive
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("evidence")
    }

    /// Runs a command on a terminal on which every line fits.
    pub(crate) fn run(&self, arguments: &str) -> Output {
        self.run_with_width("1000", arguments)
    }

    fn run_with_width(&self, columns: &str, arguments: &str) -> Output {
        let mut command = Command::new(program());
        command
            .env("COLUMNS", columns)
            .arg("evidence")
            .args(arguments.split(' '))
            .arg("--config")
            .arg(&self.file);
        command.output().expect("gatepost runs")
    }

    /// The hash of the last record.
    fn head(&self) -> String {
        out(&self.run("verify --head")).trim().to_owned()
    }

    /// Changes the lines of the file of a day.
    pub(crate) fn change(&self, day: &str, change: impl FnOnce(&mut Vec<String>)) {
        let file = self.path().join(format!("{day}.jsonl"));
        let mut all = lines(&file);
        change(&mut all);
        put(&file, &all);
    }
}

/// The last lines of a text.
fn last_lines(text: &str, count: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(count)..].join("\n")
}

/// The three commands select the same records and end with the same totals.
#[test]
fn a_month_of_one_partner_ends_with_its_totals() {
    let archive = Archive::of(&november());
    let head = archive.head();
    let expected = "selected: between 2026-11-01 and 2026-11-30 (UTC), connector hospital\n\
                    5 attempts: 4 delivered, 1 deferred\n\
                    4 recipients, 4 verified as smtp.hospital.example, 0 in the clear; ";
    let from_october =
        format!("{expected}chain whole from record 3 of 2026-10-30 on, head sha256:{head}");
    for (command, expected) in [
        ("list", &from_october),
        ("summary", &from_october),
        (
            "verify",
            &format!("{expected}chain whole, head sha256:{head}"),
        ),
    ] {
        let output = archive.run(&format!(
            "{command} --from 2026-11-01 --to 2026-11-30 --connector hospital"
        ));
        let text = out(&output);
        assert_eq!(
            (output.status.code(), &last_lines(&text, 3)),
            (Some(0), expected),
            "{command}: {}",
            err(&output)
        );
        assert!(
            !text.contains("old.hospital")
                && !text.contains("new.hospital")
                && !text.contains("other.example")
        );
    }
    // The head of the output is accepted as it was printed.
    assert_eq!(
        archive
            .run(&format!("verify --expect-head sha256:{head}"))
            .status
            .code(),
        Some(0)
    );
}

/// Each filter works with each command, and they work together.
#[test]
fn every_command_has_every_filter() {
    let archive = Archive::of(&november());
    let month = "--from 2026-11-01 --to 2026-11-30";
    for (filter, expected) in [
        ("--domain hospital.example", "\n4 recipients, "),
        ("--domain other.example", "\n1 recipient, "),
        ("--sender doctor@clinic.example", "\n1 recipient, "),
        ("--sender clinic.example", "\n1 recipient, "),
        (
            "--sender example.com --connector hospital",
            "\n3 recipients, ",
        ),
        ("--clear", "\n1 recipient, 1 in the clear; "),
        (
            "--queue-id 0000000000005",
            "\n5 recipients, 4 verified as smtp.hospital.example, 1 in the clear; ",
        ),
        (
            "--direction out --connector internet --clear",
            "\n1 recipient, 1 in the clear; ",
        ),
    ] {
        for command in ["list", "summary", "verify"] {
            let output = archive.run(&format!("{command} {month} {filter}"));
            assert_eq!(
                output.status.code(),
                Some(0),
                "{command} {filter}: {}",
                err(&output)
            );
            assert!(
                out(&output).contains(expected),
                "{command} {filter}: {}",
                out(&output)
            );
        }
    }
}

/// The totals name several verified names, and count the other kinds of sessions.
#[test]
fn mixed_sessions_are_counted_by_kind() {
    let session = |level| {
        Some(SessionRecord {
            level,
            no_tls: None,
            tls: None,
        })
    };
    let with = |level| DeliveryRecord {
        session: session(level),
        ..verified(NAME)
    };
    let day = "2026-11-01";
    let records: Vec<_> = [
        verified("a.hospital.example"),
        verified("b.hospital.example"),
        verified("b.hospital.example"),
        with(RecordedAssurance::Dane),
        with(RecordedAssurance::Pinned),
        with(RecordedAssurance::Trusted),
        with(RecordedAssurance::Tls),
        with(RecordedAssurance::Clear),
    ]
    .map(|delivery| entry(day, "2026-11-01T08:00:00Z", delivery))
    .into();
    let archive = Archive::of(&records);
    let text = out(&archive.run("verify"));
    let expected = "8 recipients, 3 verified as 2 names (a.hospital.example, b.hospital.example), 1 verified by DANE, \
                    1 verified by a pinned key, 1 encrypted with a chain, 1 encrypted, 1 in the clear; chain ";
    assert!(text.contains(expected), "{text}");
    let text = out(&archive.run("list --queue-id 0000000000005"));
    assert!(text.contains(expected), "{text}");
}

/// A record may be in the file of a later day than its own, after the clock was set back.
#[test]
fn a_record_of_a_clock_that_was_set_back_is_found_by_its_time() {
    let mut records = november();
    records.push(entry("2026-12-05", "2026-11-07T08:00:00Z", verified(NAME)));
    let archive = Archive::of(&records);
    let text = out(&archive.run("list --from 2026-11-07 --to 2026-11-07"));
    assert!(text.contains("\n1 recipient, 1 verified"), "{text}");
}

/// Nothing found is an answer: the period, and the records that the folder has.
#[test]
fn a_query_without_a_record_says_what_there_is() {
    let archive = Archive::of(&november());
    let there = format!(
        "{} has records 1 to 11, of 2026-10-01 to 2026-12-01 (UTC)\n",
        archive.path().display()
    );
    for (arguments, expected) in [
        (
            "list --from 2025-01-01 --to 2025-01-31",
            "no records between 2025-01-01 and 2025-01-31 (UTC) match\n",
        ),
        (
            "list --from 2027-01-01",
            "no records since 2027-01-01 (UTC) match\n",
        ),
        (
            "list --to 2020-01-01 --connector empty",
            "no records up to 2020-01-01 (UTC) match: connector empty\n",
        ),
        (
            "list --connector hospital --clear",
            "no records match: connector hospital, in the clear\n",
        ),
        (
            "list --direction in",
            "no records match: accepted messages\n",
        ),
        (
            "summary --from 2025-01-01 --to 2025-01-31",
            "no records between 2025-01-01 and 2025-01-31 (UTC) match\n",
        ),
    ] {
        let output = archive.run(arguments);
        assert_eq!(
            (output.status.code(), out(&output)),
            (Some(1), format!("{expected}{there}")),
            "{arguments}"
        );
        let csv = archive.run(&format!("{arguments} --csv"));
        assert_eq!(
            (csv.status.code(), err(&csv)),
            (Some(1), format!("{expected}{there}")),
            "{arguments}"
        );
        assert_eq!(out(&csv).lines().count(), 1, "{arguments}: a header alone");
    }
    let verified = archive.run("verify --clear --connector hospital");
    assert!(
        out(&verified).ends_with(&format!(
            "no records match: connector hospital, in the clear\n{there}"
        )),
        "{}",
        out(&verified)
    );
    assert_eq!(verified.status.code(), Some(1));
    for file in files(&archive.path()) {
        fs::remove_file(file).expect("ours");
    }
    let empty = archive.run("list");
    let there = format!(
        "no records match\n{} has no records\n",
        archive.path().display()
    );
    assert_eq!((empty.status.code(), out(&empty)), (Some(1), there));
}

/// A connector is known from the configuration or from a record of the period.
#[test]
fn a_connector_that_does_not_exist_is_an_error() {
    let archive = Archive::of(&november());
    for command in ["list", "list --json", "list --csv", "summary", "verify"] {
        let output = archive.run(&format!("{command} --from 2026-11-01 --connector hopsital"));
        let error = "gatepost evidence: there is no connector \"hopsital\"; did you mean \"hospital\"? \
 (there are: hospital, empty, default, internet)\n";
        assert_eq!(
            (
                output.status.code(),
                err(&output).as_str(),
                out(&output).as_str()
            ),
            (Some(2), error, ""),
            "{command}"
        );
    }
    // The configuration no longer has it, and the records do.
    assert_eq!(
        archive.run("list --connector internet").status.code(),
        Some(0)
    );
    let copy = |connector: &str| -> Output {
        let mut command = Command::new(program());
        command
            .args(["evidence", "list", "--connector", connector, "--folder"])
            .arg(archive.path());
        command.output().expect("gatepost runs")
    };
    assert_eq!(copy("hospital").status.code(), Some(0));
    assert_eq!(copy("empty").status.code(), Some(2));
    assert!(
        err(&copy("empty")).contains("there are: hospital, internet"),
        "{}",
        err(&copy("empty"))
    );
}

/// Days that do not exist or are in the wrong order are errors of usage.
#[test]
fn nonsense_days_are_errors_of_usage() {
    let archive = Archive::of(&november());
    for (days, expected) in [
        (
            "--from 2026-11-30 --to 2026-11-01",
            "gatepost evidence: --from 2026-11-30 is after --to 2026-11-01\n",
        ),
        (
            "--from 2026-11-31",
            "a day is written as 2026-11-30, and must exist",
        ),
        (
            "--to November",
            "a day is written as 2026-11-30, and must exist",
        ),
    ] {
        for command in ["list", "summary", "verify"] {
            let output = archive.run(&format!("{command} {days}"));
            assert_eq!(
                (output.status.code(), out(&output).as_str()),
                (Some(2), ""),
                "{command} {days}"
            );
            assert!(
                err(&output).contains(expected),
                "{command} {days}: {}",
                err(&output)
            );
        }
    }
}

/// Rows that are too wide for the terminal become blocks, and columns without a count are left out.
#[test]
fn the_output_fits_the_terminal() {
    let archive = Archive::of(&november());
    let body = |columns: &str, command: &str| -> String {
        let text = out(&archive.run_with_width(
            columns,
            &format!("{command} --from 2026-11-15 --to 2026-11-15"),
        ));
        let end = text.find("selected: ").expect("it is selected");
        text[..end].to_owned()
    };
    for columns in ["", "80", "60"] {
        let text = body(columns, "list");
        let width = columns.parse().unwrap_or(80);
        assert!(
            text.lines().all(|line| line.chars().count() <= width),
            "{columns}: {text}"
        );
        assert!(
            text.starts_with("2026-11-15 08:00:00  out  0000000000005  "),
            "{text}"
        );
    }
    let expected = "2026-11-15 08:30:00  out  0000000000005  sender@example.com to\n    a@hospital.example\n    \
                    hospital: TLS, name verified, demand met; delivered 2.0.0\n";
    assert!(body("", "list").ends_with(expected), "{}", body("", "list"));
    let table = body("200", "list");
    assert!(
        table.starts_with("time (UTC)           way  id             from  "),
        "{table}"
    );
    assert_eq!(table.lines().count(), 3, "{table}");
    let summary = body("", "summary");
    assert!(
        summary.starts_with(
            "connector  domain            delivered  verified  deferred\n\
             hospital   hospital.example  1          1         1\n"
        ),
        "{summary}"
    );
}

/// The totals and the state of the chain fit the terminal too. Only the hash of the head may be
/// wider, since it must be copied in one piece.
#[test]
fn the_last_lines_fit_the_terminal() {
    let archive = Archive::of(&november());
    let head = archive.head();
    let sealed = format!("sha256:{head}");
    for command in ["list", "summary", "verify"] {
        let arguments = format!(
            "{command} --from 2026-11-01 --to 2026-11-30 --connector hospital --domain hospital.example"
        );
        for (columns, width) in [("", 80), ("60", 60)] {
            let text = out(&archive.run_with_width(columns, &arguments));
            let start = text.find("selected: ").expect("it is selected");
            let last = if command == "verify" {
                &text
            } else {
                &text[start..]
            };
            let is_hash = |line: &str| line.trim() == head || line.trim() == sealed;
            let fits = |line: &str| line.chars().count() <= width || is_hash(line);
            assert!(last.lines().all(fits), "{command} {columns}: {text}");
            let totals = text.replace("\n    ", " ");
            let expected =
                "\n4 recipients, 4 verified as smtp.hospital.example, 0 in the clear; chain whole";
            assert!(totals.contains(expected), "{command} {columns}: {text}");
            assert!(totals.ends_with(&format!(" head sha256:{head}\n")));
        }
    }
    let nothing = out(&archive.run_with_width(
        "40",
        "list --connector hospital --clear --sender alice@clinic.example",
    ));
    let path = archive.path().display().to_string();
    let fits = |line: &str| line.chars().count() <= 40 || line == path;
    assert!(nothing.lines().all(fits), "{nothing}");
}

/// The JSON of the list has the record as it was written, and behind it the names that every
/// document uses.
#[test]
fn json_has_the_record_and_the_common_names() {
    let archive = Archive::of(&november());
    let text = out(&archive.run("list --json --from 2026-11-15 --to 2026-11-15"));
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let all = json.as_array().expect("an array");
    assert_eq!(all.len(), 2);
    for (record, line) in all
        .iter()
        .zip(lines(&archive.path().join("2026-11-15.jsonl")))
    {
        assert_eq!(
            (&record["sender"], &record["recipient"]),
            (&record["from"], &record["to"])
        );
        assert!(text.contains(line.trim_end_matches('}')), "{text}");
    }
    let summary: serde_json::Value = serde_json::from_str(&out(
        &archive.run("summary --json --from 2026-11-01 --to 2026-11-30")
    ))
    .expect("JSON");
    let totals = &summary["totals"];
    assert_eq!(
        (
            &totals["attempts"]["deferred"],
            &totals["recipients"]["count"]
        ),
        (&1.into(), &5.into())
    );
    assert_eq!(totals["recipients"]["verified_as"][NAME], 4);
    assert_eq!(
        (&summary["since"], &summary["until"]),
        (
            &"2026-11-01T00:00:00Z".into(),
            &"2026-12-01T00:00:00Z".into()
        )
    );
    assert_eq!(
        (
            &summary["chain"]["whole"],
            &summary["chain"]["first"]["seq"]
        ),
        (&true.into(), &3.into())
    );
    let verified: serde_json::Value =
        serde_json::from_str(&out(&archive.run("verify --json"))).expect("JSON");
    assert_eq!(
        (
            &verified["whole"],
            &verified["totals"]["recipients"]["count"]
        ),
        (&true.into(), &9.into())
    );
    assert_eq!(verified["head"]["hash"], archive.head());
}
