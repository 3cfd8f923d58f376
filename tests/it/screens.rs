//! The output of the commands fits the terminal, and repeats nothing that is too long.

use std::process::{Command, Output, Stdio};

use crate::support::config::ConfigBuilder;
use crate::support::operated::{err, out};

/// Runs the program in a terminal with these columns; `None` if they are not known.
fn gatepost(columns: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("COLUMNS")
        .args(arguments)
        .stdin(Stdio::null());
    if let Some(columns) = columns {
        command.env("COLUMNS", columns);
    }
    command.output().expect("gatepost runs")
}

/// The lines that are wider than the terminal, without those that cannot be broken because of a
/// long path or name.
pub(crate) fn too_wide(text: &str, width: usize) -> Vec<&str> {
    let is_too_wide = |line: &&str| {
        let longest = line
            .split_whitespace()
            .map(|word| word.chars().count())
            .max();
        line.chars().count() > width && longest.unwrap_or_default() < width / 2
    };
    text.lines().filter(is_too_wide).collect()
}

/// An error names an overlong argument by its beginning alone, wherever it stands.
#[test]
fn an_overlong_argument_is_not_repeated() {
    let long = "x".repeat(100_000);
    let option = format!("--{long}");
    let domain = format!("{}@", "é".repeat(40_000));
    for arguments in [
        &[long.as_str()][..],
        &["check", &long],
        &["check", &option],
        &[
            "check",
            "--connector",
            &long,
            "--config",
            "config/gatepost.toml",
        ],
        &["explain", &domain],
        &["queue", "show", &long],
        &["queue", "list", &format!("--state={long}")],
    ] {
        let output = gatepost(None, arguments);
        let shown = err(&output);
        assert_eq!(output.status.code(), Some(2), "{}", shown.len());
        assert!(shown.len() < 2000, "{} octets", shown.len());
        assert!(shown.contains('…'), "{shown}");
    }
    let sendmail = gatepost(None, &["sendmail", &option]);
    assert_eq!(sendmail.status.code(), Some(64));
    assert!(err(&sendmail).len() < 2000, "{}", err(&sendmail).len());
    let short = gatepost(None, &["check", "--confg", "x"]);
    assert!(err(&short).contains("'--confg'"), "{}", err(&short));
}

/// Warnings and errors fit the terminal, and 80 columns if it is not known.
#[test]
fn warnings_and_errors_are_wrapped() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gatepost.toml");
    let text = ConfigBuilder::new()
        .table("admin", "socket = \"s\"\nhttp = \"192.0.2.1:9025\"")
        .text();
    std::fs::write(&file, text).expect("the folder is ours");
    let warned = file.to_string_lossy().into_owned();
    let faulty = "tests/it/config_faults/everything_at_once.toml";
    for (columns, width) in [(None, 80), (Some("50"), 50), (Some("120"), 120)] {
        for (config, first) in [(&*warned, "warning: "), (faulty, faulty)] {
            let output = gatepost(columns, &["check", "--config", config]);
            assert!(err(&output).starts_with(first), "{}", err(&output));
            let shown = out(&output) + &err(&output);
            assert_eq!(too_wide(&shown, width), [""; 0], "{columns:?}");
            // A wider terminal has longer lines.
            assert!(
                shown
                    .lines()
                    .any(|line| line.chars().count() > width * 3 / 4)
            );
        }
    }
}
