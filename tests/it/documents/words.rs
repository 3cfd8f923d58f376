//! The texts of the repository use the words of the glossary in ARCHITECTURE.md.

use super::{Files, documents, files_below};

/// Other names of things that the glossary names, with the name to use.
const OTHER_NAMES: [(&str, &str); 8] = [
    ("TLS if offered", "TLS opportunistic"),
    ("TLS where it is offered", "TLS opportunistic"),
    ("TLS memory", "downgrade memory"),
    ("remembered  ", "downgrade memory  "),
    ("exception has expired", "exception has ended"),
    ("connector has expired", "exception has ended"),
    ("exception, ended", "exception ended"),
    ("until the end of {}", "until {}"),
];

/// The words that the glossary excludes. An entry with an explanation in brackets is excluded in
/// one sense only.
fn excluded(glossary: &str) -> Vec<String> {
    let (_, list) = glossary.split_once("Not used: ").expect("the list");
    let (list, _) = list.split_once(". Use:").expect("its end");
    let list = list.split_whitespace().collect::<Vec<_>>().join(" ");
    let entries = list.split(", ").filter(|entry| !entry.contains('('));
    let mut words: Vec<_> = entries.map(str::to_owned).collect();
    words.extend(["tells", "looks", "notes", "enters"].map(str::to_owned));
    words
}

/// The excluded words that stand in these lines.
fn faults_of_words<'t>(
    file: &str,
    lines: impl Iterator<Item = (usize, &'t str)>,
    excluded: &[String],
) -> Vec<String> {
    let mut faults = Vec::new();
    for (at, line) in lines {
        let plain = line
            .to_lowercase()
            .replace(|c: char| !c.is_alphanumeric(), " ");
        let plain = format!(
            " {} ",
            plain.split_whitespace().collect::<Vec<_>>().join(" ")
        );
        for word in excluded {
            if plain.contains(&format!(" {word} ")) {
                faults.push(format!("{file}:{}: \"{word}\"", at + 1));
            }
        }
    }
    faults
}

/// The other names that stand in a file.
fn faults_of_names(files: &Files) -> Vec<String> {
    let mut faults = Vec::new();
    for (file, text) in files {
        for (other, name) in OTHER_NAMES {
            if text.contains(other) {
                faults.push(format!("{file}: write {name:?}, not {other:?}"));
            }
        }
    }
    faults
}

/// The files that an administrator edits or installs, and the comments of the scripts, use none of
/// the excluded words.
#[test]
fn configuration_and_scripts_use_no_excluded_word() {
    let excluded = excluded(&documents()["ARCHITECTURE.md"]);
    let mut faults = Vec::new();
    for (file, text) in files_below(&["config"]) {
        faults.extend(faults_of_words(&file, text.lines().enumerate(), &excluded));
    }
    for (file, text) in files_below(&[".ci"]) {
        let comments = text.lines().enumerate().filter(|(_, line)| {
            let line = line.trim_start();
            line.starts_with('#') || line.starts_with("//")
        });
        faults.extend(faults_of_words(&file, comments, &excluded));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Outputs, log lines, documents and man pages have one name for one thing.
#[test]
fn a_thing_has_one_name() {
    let mut files = files_below(&["src", "config"]);
    files.extend(documents());
    let faults = faults_of_names(&files);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// An excluded word is found in any case and beside punctuation, and not inside of another word.
#[test]
fn an_excluded_word_is_found() {
    let excluded = excluded("Not used: told, in clear, floor (of the\ncode), desk. Use: inform.");
    let found = |line: &str| faults_of_words("f", [(0, line)].into_iter(), &excluded).len();
    for (line, count) in [
        ("# Told again.", 1),
        ("mail in clear; a desk", 2),
        ("untold, in clearance, desktop, floor", 0),
    ] {
        assert_eq!(found(line), count, "{line}");
    }
    let text = "\nTLS memory:".to_owned();
    assert_eq!(
        faults_of_names(&Files::from([("f".to_owned(), text)])).len(),
        1
    );
}
