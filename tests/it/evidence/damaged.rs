//! An auditor's questions to evidence that was damaged or is missing.

use std::fs;

use super::audit::{Archive, november};
use super::daemon::{err, out};

/// A change to an archive, and whether a period in its middle is still whole.
type Damage = (&'static str, fn(&Archive), bool);

const DAMAGES: [Damage; 5] = [
    ("nothing", |_| {}, true),
    (
        "a record long before the period is edited",
        |archive| archive.change("2026-10-02", |lines| edit_first(lines)),
        true,
    ),
    (
        "the record before the period is missing",
        |archive| archive.change("2026-11-01", |lines| drop(lines.pop())),
        false,
    ),
    (
        "the first record of the period is missing",
        |archive| archive.change("2026-11-15", |lines| drop(lines.remove(0))),
        false,
    ),
    (
        "a record after the period is edited",
        |archive| archive.change("2026-11-30", |lines| edit_first(lines)),
        false,
    ),
];

fn edit_first(lines: &mut [String]) {
    lines[0] = lines[0].replace("sender@", "render@");
}

/// The chain is verified from the record before the period to the end.
#[test]
fn the_output_says_what_was_verified() {
    for (damage, apply, is_whole) in DAMAGES {
        let archive = Archive::of(&november());
        apply(&archive);
        let output = archive.run("list --from 2026-11-15 --to 2026-11-15");
        let (text, errors) = (out(&output), err(&output));
        assert_eq!(
            output.status.success(),
            is_whole,
            "{damage}: {text}{errors}"
        );
        assert_eq!(
            text.contains("; chain whole from record 5 of 2026-11-01 on, head sha256:"),
            is_whole,
            "{damage}: {text}"
        );
        assert_eq!(
            text.contains("; chain NOT WHOLE from record 5"),
            !is_whole,
            "{damage}: {text}"
        );
        assert!(
            is_whole || errors.contains("see gatepost evidence verify --folder"),
            "{damage}: {errors}"
        );
    }
}

/// `verify` reads the chain from its first record, whatever the period is.
#[test]
fn verify_reads_the_chain_from_its_first_record() {
    for (damage, apply, _) in DAMAGES {
        let archive = Archive::of(&november());
        apply(&archive);
        let verified = archive.run("verify --from 2026-11-15 --to 2026-11-15");
        let untouched = damage == "nothing";
        let text = out(&verified);
        assert_eq!(verified.status.success(), untouched, "{damage}: {text}");
        assert_eq!(
            text.contains("; chain whole, head sha256:"),
            untouched,
            "{damage}"
        );
    }
}

/// A folder that does not exist is an error with the key or the option that names it.
#[test]
fn a_missing_folder_has_its_remedy() {
    let archive = Archive::of(&november());
    fs::remove_dir_all(archive.path()).expect("ours");
    let path = archive.path().display().to_string();
    let key = format!("Check [evidence] path ({}:", archive.file.display());
    for command in ["list", "summary", "verify", "verify --head"] {
        for (folder, remedy) in [
            (String::new(), key.as_str()),
            (format!(" --folder {path}"), "Check --folder: "),
        ] {
            let output = archive.run(&format!("{command}{folder}"));
            let expected = format!(
                "gatepost evidence: cannot list {path}: No such file or directory (os error 2)\n{remedy}"
            );
            assert!(
                err(&output).starts_with(&expected),
                "{command}{folder}: {}",
                err(&output)
            );
            assert_eq!(
                (output.status.code(), out(&output)),
                (Some(1), String::new())
            );
        }
    }
}
