//! Invalid configurations, one behaviour in each file, with the exact messages.
//!
//! `tests/it/config_faults/NAME.toml` is parsed as a file in the current folder. `NAME.expected`
//! holds its faults, or the warnings if it is valid. `UPDATE_EXPECTED=1` rewrites the expectations;
//! read the difference before you commit it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use gatepost::config;
use proptest::prelude::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/config_faults")
}

fn names(extension: &str) -> BTreeSet<String> {
    let files = fs::read_dir(folder())
        .expect("the folder of bad configurations")
        .map(|file| file.expect("a file").path());
    let wanted = files.filter(|file| file.extension().is_some_and(|found| found == extension));
    wanted
        .map(|file| {
            file.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

/// The messages about a file.
fn said(name: &str) -> String {
    let text =
        fs::read_to_string(folder().join(format!("{name}.toml"))).expect("a bad configuration");
    let mut said = String::new();
    match config::parse(&text, Path::new(&format!("{name}.toml"))) {
        Ok((_, warnings)) => {
            for warning in warnings {
                writeln!(said, "warning: {warning}").expect("a string takes all");
            }
        }
        Err(faults) => {
            for fault in faults {
                writeln!(said, "{fault}").expect("a string takes all");
            }
        }
    }
    said
}

#[test]
fn each_fault_has_its_message_location_and_remedy() {
    let mut wrong = String::new();
    for name in names("toml") {
        let said = said(&name);
        assert!(!said.is_empty(), "{name}.toml was taken without a word");
        let file = folder().join(format!("{name}.expected"));
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&file, &said).expect("writing an expectation");
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if said != expected {
            write!(
                wrong,
                "{name}: expected\n{expected}\n{name}: said\n{said}\n"
            )
            .expect("a string takes all");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn each_expectation_has_its_configuration() {
    assert_eq!(names("toml"), names("expected"));
    assert!(names("toml").len() >= 30);
}

#[test]
fn a_missing_file_is_one_fault_with_a_remedy() {
    let faults =
        config::read(Path::new("/nonexistent/gatepost.toml")).expect_err("there is no such file");
    assert_eq!(faults.len(), 1);
    assert!(
        faults[0]
            .to_string()
            .starts_with("/nonexistent/gatepost.toml:1:1: the configuration cannot be read")
    );
    assert!(faults[0].remedy.contains("--config"));
}

#[test]
fn an_octet_that_is_not_utf_8_is_a_fault_at_its_location() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let read = |octets: &[u8]| {
        fs::write(file.path(), octets).expect("our own file");
        let faults = config::read(file.path()).expect_err("it is not UTF-8");
        faults
            .iter()
            .map(|fault| {
                (
                    fault.location.line,
                    fault.location.column,
                    fault.message.clone(),
                )
            })
            .collect::<Vec<_>>()
    };
    let told = |octet: &str| format!("the octet {octet} here is not UTF-8 text");
    let text = b"hostname = \"relay.example.com\"\n# \xc3\xbc, and B\xfcro and B\xe4r\n\nname = \"\xdf\"\n";
    assert_eq!(read(text), [(2, 11, told("0xFC")), (4, 9, told("0xDF"))]);
    assert_eq!(
        read(&[b"\xef\xbb\xbf", &text[..]].concat())[0],
        (2, 11, told("0xFC"))
    );
    // A character that is cut off at the end of the file.
    assert_eq!(read(b"hostname = \"\xc3"), [(1, 13, told("0xC3"))]);
}

const PIECES: &str = r#"hostname postmaster tls [tls] [[tls.sni]] [[listener]] [listener] [[connector]]
    [connector.outbound] [connector.inbound] [relay] [queue] [limits] [timeouts] [dns] [log] name names domains address
    route verify networks retry message_size connector.name = . , { } [ ] " ' # """ \ "mx" "*" "forced" "5parsecs"
    "18446744073709551615s" "[::]:25" "0.0.0.0/0" "ü" ["*"] [] [[]] [1,"a"] {a=1} -1 0x7f 1e9 nan true 1979-05-27
    9999999999999999999999"#;
const BLANKS: [&str; 6] = ["\n", "\n", " = ", "\u{feff}", "\0", "\r"];

/// Parts of configurations, so that random texts get past the first syntax error.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => prop::sample::select(PIECES.split_whitespace().collect::<Vec<_>>()).prop_map(str::to_owned),
        3 => prop::sample::select(BLANKS.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
        1 => "[a-z\\[\\]=\"\\n .]{0,12}",
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

const KEYS: &str = "hostname postmaster name names domains address tls route port verify trust networks relay retry \
    expire message_size recipients command servers dnssec trust_anchor level path url lease node certificate key client_key min_version on_failure";
const TABLES: &str = "[tls] [[tls.sni]] [[listener]] [[connector]] [connector.outbound] [connector.inbound] [relay] \
    [queue] [limits] [timeouts] [dns] [log] [spool] [cluster]";

/// Keys and values in their right positions, with arbitrary values.
fn lines() -> impl Strategy<Value = String> {
    let one_of =
        |words: &'static str| prop::sample::select(words.split_whitespace().collect::<Vec<_>>());
    let word = || {
        prop_oneof![
            "[a-z0-9*.:/\\[\\]@ -]{0,16}".prop_map(|text| format!("\"{text}\"")),
            Just("\"forced\"".to_owned()),
            Just("\"name\"".to_owned()),
            Just("\"*\"".to_owned()),
            "[0-9]{1,20}[a-zA-Z]{0,3}".prop_map(|text| format!("\"{text}\"")),
            any::<i64>().prop_map(|number| number.to_string()),
            any::<bool>().prop_map(|yes| yes.to_string()),
        ]
    };
    let list =
        prop::collection::vec(word(), 0..4).prop_map(|items| format!("[{}]", items.join(", ")));
    let value = prop_oneof![3 => word(), 2 => list];
    let line = prop_oneof![
        3 => (one_of(KEYS), value).prop_map(|(key, value)| format!("{key} = {value}\n")),
        1 => one_of(TABLES).prop_map(|table| format!("{table}\n")),
    ];
    prop::collection::vec(line, 0..30).prop_map(|lines| lines.concat())
}

/// Any text gives a configuration or faults, and each fault has a location within the text.
fn is_answered(text: &str) {
    match config::parse(text, Path::new("any.toml")) {
        Ok((config, _)) => assert!(!config.listeners.is_empty()),
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a reason: {text:?}");
            let lines = text.matches('\n').count() + 1;
            for fault in faults {
                assert!(
                    fault.location.line >= 1 && fault.location.column >= 1,
                    "{fault}"
                );
                assert!(fault.location.line as usize <= lines, "{fault} in {text:?}");
                assert!(
                    !fault.message.contains('\n') && !fault.remedy.is_empty(),
                    "{fault}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_pieces_upset_the_parser(text in pieces()) {
        is_answered(&text);
    }

    #[test]
    fn no_values_upset_the_parser(text in lines()) {
        is_answered(&text);
    }

    #[test]
    fn no_text_upsets_the_parser(text in any::<String>()) {
        is_answered(&text);
    }
}
