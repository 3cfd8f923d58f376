//! `docs/rules.md` names, for each rule of seven standards and of the policy table, the code that
//! follows it and the test that shows it. These tests keep it true.
//!
//! The code carries marks: "RFC 5321 §4.1.4" in a comment, or a line "// Rule: RFC 5321 §4.1.4;
//! policy table (refused)." above an item.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Files, code_spans, files_below};

/// The standards, with the sections in which they place demands on a relay (MUST, SHOULD, and the
/// grammar).
const SECTIONS: [(&str, &[&str]); 11] = [
    ("2033", &["4.1", "4.2"]),
    ("3207", &["2", "4", "4.1", "4.2", "4.3", "6"]),
    ("4954", &["3", "4", "5", "6", "14"]),
    (
        "5321",
        &[
            "4.1.1",
            "4.1.1.1",
            "4.1.1.2",
            "4.1.1.3",
            "4.1.1.4",
            "4.1.1.5",
            "4.1.1.6",
            "4.1.1.7",
            "4.1.1.8",
            "4.1.1.9",
            "4.1.1.10",
            "4.1.1.11",
            "4.1.2",
            "4.1.3",
            "4.1.4",
            "4.1.5",
            "4.2",
            "4.2.1",
            "4.2.2",
            "4.2.3",
            "4.2.4",
            "4.2.5",
            "4.3.1",
            "4.3.2",
            "4.4",
            "4.5.1",
            "4.5.2",
            "4.5.3.1",
            "4.5.3.1.1",
            "4.5.3.1.2",
            "4.5.3.1.3",
            "4.5.3.1.4",
            "4.5.3.1.5",
            "4.5.3.1.6",
            "4.5.3.1.7",
            "4.5.3.1.8",
            "4.5.3.1.9",
            "4.5.3.1.10",
            "4.5.3.2",
            "4.5.3.2.1",
            "4.5.3.2.2",
            "4.5.3.2.3",
            "4.5.3.2.4",
            "4.5.3.2.5",
            "4.5.3.2.6",
            "4.5.3.2.7",
            "4.5.4",
            "4.5.4.1",
            "4.5.4.2",
            "4.5.5",
            "5.1",
            "5.2",
        ],
    ),
    (
        "6749",
        &["2.3.1", "3.2", "3.3", "4.4", "5.1", "5.2", "6", "7.1"],
    ),
    ("7521", &["4.2"]),
    ("7523", &["2.1", "2.2", "3"]),
    (
        "7672",
        &[
            "1.3.2", "2.1.1", "2.1.2", "2.1.3", "2.2", "2.2.1", "2.2.2", "2.2.3", "3.1", "3.1.1",
            "3.1.2", "3.1.3", "3.2", "3.2.1", "3.2.2", "3.2.3", "4", "5", "6", "8.1", "8.2", "9.1",
            "9.2",
        ],
    ),
    (
        "8461",
        &[
            "2", "3", "3.1", "3.2", "3.3", "3.4", "4.1", "4.2", "5", "5.1", "6", "7.1", "7.2",
            "8.1", "8.2", "8.3", "10.2", "10.3",
        ],
    ),
    (
        "8689",
        &["2", "3", "4.1", "4.2.1", "4.2.2", "4.3", "4.4", "5", "6"],
    ),
    (
        "9525",
        &[
            "2", "3", "4.1", "5", "6.1", "6.1.1", "6.2", "6.3", "6.4", "6.5", "6.6", "7.1", "7.3",
            "7.5",
        ],
    ),
];

/// The rows of the policy table, by the names that they have in the document.
const POLICY_TABLE: [&str; 6] = [
    "no STARTTLS",
    "STARTTLS rejected",
    "broken handshake",
    "octets before the handshake",
    "untrusted certificate",
    "trusted certificate",
];

/// A rule's place: a standard's number and a section, or "table" and the name of a row.
type Place = (String, String);

/// One line of the document.
#[derive(Debug)]
struct Rule {
    place: Place,
    /// Paths, and the names of items in them.
    code: Vec<(String, Vec<String>)>,
    /// Tests as `cargo test` names them, and the files that tests go through
    /// ("dialogues/server/rset.txt").
    tests: Vec<String>,
    /// The reason why there is no code.
    is_left_out: bool,
    line: usize,
}

/// Reads the document.
fn rules(document: &str) -> Result<Vec<Rule>, String> {
    let (mut standard, mut rules) = (String::new(), Vec::new());
    for (line, text) in (1..).zip(document.lines()) {
        if let Some(heading) = text.strip_prefix("## ") {
            let number = heading.strip_prefix("RFC ").and_then(|rest| rest.get(..4));
            number.unwrap_or("table").clone_into(&mut standard);
        }
        let Some(row) = text
            .strip_prefix("| ")
            .and_then(|row| row.strip_suffix(" |"))
        else {
            continue;
        };
        let cells: Vec<_> = row.split(" | ").map(str::trim).collect();
        let [section, _, code, tests] = cells[..] else {
            return Err(format!("line {line}: not four cells: {row}"));
        };
        if section == "§" || section == "row" || section.starts_with("--") {
            continue;
        }
        let place = (standard.clone(), section.to_owned());
        let is_left_out = code.starts_with("not done: ");
        let tests = code_spans(tests).map(str::to_owned).collect();
        rules.push(Rule {
            place,
            code: named(code),
            tests,
            is_left_out,
            line,
        });
    }
    Ok(rules)
}

/// The paths in a cell, each with the names behind it.
fn named(cell: &str) -> Vec<(String, Vec<String>)> {
    let mut named: Vec<(String, Vec<String>)> = Vec::new();
    for span in code_spans(cell) {
        if span.contains('/') {
            named.push((span.to_owned(), Vec::new()));
        } else if let Some((_, items)) = named.last_mut() {
            items.push(span.to_owned());
        }
    }
    named
}

/// Returns true if the line begins the definition of an item of this name.
fn defines(line: &str, name: &str) -> bool {
    let line = line.trim_start();
    let visible = line.strip_prefix("pub").unwrap_or(line);
    let visible = match visible
        .strip_prefix('(')
        .and_then(|rest| rest.split_once(')'))
    {
        Some((_, rest)) => rest,
        None => visible,
    };
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let words: Vec<_> = visible
        .split(|c| !is_part(c))
        .filter(|word| !word.is_empty())
        .collect();
    let is_modifier = |word: &&str| ["async", "const"].contains(word);
    let kinds = ["fn", "struct", "enum", "const", "static", "type", "trait"];
    let of = |at: usize| {
        kinds.contains(&words[at]) && words[at + 1] == name && words[..at].iter().all(is_modifier)
    };
    !line.starts_with("//") && (0..words.len().saturating_sub(1)).any(of)
}

/// The definitions of an item, each with the comments and attributes above it.
fn definitions(text: &str, name: &str) -> Vec<String> {
    let lines: Vec<_> = text.lines().collect();
    let defined = (0..lines.len()).filter(|at| defines(lines[*at], name));
    let blocks = defined.map(|at| {
        let indent = lines[at].len() - lines[at].trim_start().len();
        let is_above = |line: &&&str| {
            line.trim_start().starts_with("//") || line.trim_start().starts_with("#[")
        };
        let begin = at - lines[..at].iter().rev().take_while(is_above).count();
        let ends = |line: &str| {
            let is_close = line.len() > indent && ["}", "};", "];"].contains(&&line[indent..]);
            is_close && line.trim_start().len() == line.len() - indent
        };
        let length = lines[at..].iter().position(|line| ends(line)).unwrap_or(0);
        let end = if lines[at].ends_with(';') || lines[at].ends_with('}') {
            at
        } else {
            at + length
        };
        lines[begin..=end].join("\n")
    });
    blocks.collect()
}

/// The places that a text is marked with.
fn marks(text: &str) -> BTreeSet<Place> {
    let lines: Vec<_> = text
        .lines()
        .map(|line| line.trim().trim_start_matches(['/', '!']).trim())
        .collect();
    let text = lines.join(" ");
    let mut marks = BTreeSet::new();
    for (at, _) in text.match_indices("RFC ") {
        let rest = &text[at + 4..];
        let Some(number) = rest
            .get(..4)
            .filter(|number| SECTIONS.iter().any(|(of, _)| of == number))
        else {
            continue;
        };
        let mut rest = &rest[4..];
        while let Some(section) = rest
            .trim_start_matches([' ', ','])
            .trim_start_matches("and ")
            .strip_prefix('§')
        {
            let length = section
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(section.len());
            marks.insert((
                number.to_owned(),
                section[..length].trim_end_matches('.').to_owned(),
            ));
            rest = &section[length..];
        }
    }
    for (at, before) in text.match_indices("policy table (") {
        let rest = &text[at + before.len()..];
        let names = rest.split(')').next().unwrap_or_default().split(", ");
        marks.extend(names.map(|name| ("table".to_owned(), name.to_owned())));
    }
    marks
}

/// The faults of the rules' code: paths, items and marks that are not there.
fn faults_of_code(rule: &Rule, files: &Files) -> Vec<String> {
    let mut faults = Vec::new();
    let (line, place) = (rule.line, &rule.place);
    if rule.code.is_empty() != rule.is_left_out
        || rule.code.iter().any(|(_, items)| items.is_empty())
    {
        faults.push(format!(
            "line {line}: a rule names items, or says \"not done: \" and why"
        ));
    }
    for (path, items) in &rule.code {
        let Some(text) = files.get(path) else {
            faults.push(format!("line {line}: there is no {path}"));
            continue;
        };
        for item in items {
            let found = definitions(text, item);
            if found.is_empty() {
                faults.push(format!("line {line}: {path} has no {item}"));
            } else if !found.iter().any(|block| marks(block).contains(place)) {
                faults.push(format!(
                    "line {line}: {item} in {path} has no mark of {place:?}"
                ));
            }
        }
    }
    faults
}

/// The faults of a rule's tests: files and tests that are not there.
fn faults_of_tests(rule: &Rule, files: &Files) -> Vec<String> {
    let line = rule.line;
    if rule.tests.is_empty() && !rule.is_left_out {
        return vec![format!("line {line}: no test is named")];
    }
    let missing = rule.tests.iter().filter(|test| {
        let is_there = if test.contains('/') {
            files.contains_key(&format!("tests/it/{test}"))
        } else {
            is_test(test, files)
        };
        !is_there
    });
    missing
        .map(|test| format!("line {line}: there is no test {test}"))
        .collect()
}

/// Returns true if there is a test of this name, such as
/// `outbound::reuse::connectors_share_no_connection`.
fn is_test(name: &str, files: &Files) -> bool {
    let Some((module, name)) = name.rsplit_once("::") else {
        return false;
    };
    let module = module.replace("::", "/");
    // Unit tests may stand at the end of the file that they test.
    let outer = module.strip_suffix("/tests").unwrap_or(&module);
    let places = ["tests/it", "src"].into_iter().flat_map(|root| {
        [&*module, outer]
            .into_iter()
            .flat_map(move |module| ["", "/mod"].map(|end| format!("{root}/{module}{end}.rs")))
    });
    let is_test = |block: &String| block.contains("#[test]") || block.contains("#[tokio::test");
    let mut texts = places.filter_map(|path| files.get(&path));
    texts.any(|text| definitions(text, name).iter().any(is_test))
}

/// The marks in the code that no rule belongs to. A mark of a section stands for all that it
/// contains; a line "Rule:" must be named with its file.
fn faults_of_marks(rules: &[Rule], files: &Files) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| {
        Path::new(path)
            .extension()
            .is_some_and(|extension| extension == "rs")
            && !path.contains("/documents/")
    }) {
        for (of, section) in marks(text) {
            let inner = format!("{section}.");
            let is_here =
                |rule: &&Rule| rule.place.1 == section || rule.place.1.starts_with(&inner);
            if !rules
                .iter()
                .filter(|rule| rule.place.0 == of)
                .any(|rule| is_here(&rule))
            {
                faults.push(format!(
                    "{path} is marked with {of} {section}, which no rule has"
                ));
            }
        }
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.trim_start().starts_with("// Rule: "))
            .collect();
        for place in lines.iter().flat_map(|line| marks(line)) {
            let is_named =
                |rule: &Rule| rule.place == place && rule.code.iter().any(|(of, _)| of == path);
            if !rules.iter().any(is_named) {
                faults.push(format!(
                    "{path} has a line for {place:?}, and no rule names the file"
                ));
            }
        }
    }
    faults
}

/// The sections and rows without a rule.
fn missing_places(rules: &[Rule]) -> Vec<String> {
    let sections = SECTIONS
        .iter()
        .flat_map(|(of, sections)| sections.iter().map(move |section| (*of, *section)));
    let wanted = sections.chain(POLICY_TABLE.map(|row| ("table", row)));
    let has = |(of, section): &(&str, &str)| {
        rules
            .iter()
            .any(|rule| rule.place.0 == *of && rule.place.1 == *section)
    };
    wanted
        .filter(|place| !has(place))
        .map(|(of, section)| format!("no rule of {of} {section}"))
        .collect()
}

fn faults(document: &str, files: &Files) -> Vec<String> {
    let rules = match rules(document) {
        Ok(rules) => rules,
        Err(fault) => return vec![fault],
    };
    let mut faults: Vec<_> = rules
        .iter()
        .flat_map(|rule| faults_of_code(rule, files))
        .collect();
    faults.extend(rules.iter().flat_map(|rule| faults_of_tests(rule, files)));
    faults.extend(faults_of_marks(&rules, files));
    faults.extend(missing_places(&rules));
    faults
}

/// Every rule has its code and its test, every mark its rule, and every section a rule.
#[test]
fn each_rule_has_its_code_and_its_test() {
    let mut files = files_below(&["src", "tests"]);
    files.extend(super::documents());
    let faults = faults(&files["docs/rules.md"], &files);
    assert!(faults.is_empty(), "docs/rules.md:\n{}", faults.join("\n"));
}

/// A change that breaks the document is found.
#[test]
fn a_rule_that_is_not_true_is_found() {
    let code = "/// Greets.\n// Rule: RFC 5321 §4.2; policy table (no STARTTLS).\npub(in crate::a) fn greet() {\n    x();\n}\n";
    let test = "/// It greets.\n#[test]\nfn greets() {\n}\n\nfn helps() {\n}\n";
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let files = Files::from([file("src/a.rs", code), file("tests/it/a.rs", test)]);
    let row = |section: &str, code: &str, tests: &str| {
        format!("| {section} | It greets. | {code} | {tests} |\n")
    };
    let table = format!(
        "## Policy table\n{}",
        row("no STARTTLS", "`src/a.rs` `greet`", "`a::greets`")
    );
    let of = |row: &str| {
        let found = faults(&format!("## RFC 5321: SMTP\n{row}{table}"), &files);
        found
            .into_iter()
            .filter(|fault| !fault.starts_with("no rule of"))
            .collect::<Vec<_>>()
            .join("; ")
    };
    assert_eq!(of(&row("4.2", "`src/a.rs` `greet`", "`a::greets`")), "");
    for (code, tests, fault) in [
        ("`src/b.rs` `greet`", "`a::greets`", "there is no src/b.rs"),
        ("`src/a.rs` `leave`", "`a::greets`", "src/a.rs has no leave"),
        ("`src/a.rs`", "`a::greets`", "a rule names items"),
        ("later", "`a::greets`", "a rule names items"),
        (
            "`src/a.rs` `greet`",
            "`a::helps`",
            "there is no test a::helps",
        ),
        (
            "`src/a.rs` `greet`",
            "`b::greets`",
            "there is no test b::greets",
        ),
        (
            "`src/a.rs` `greet`",
            "`dialogues/a.txt`",
            "there is no test dialogues/a.txt",
        ),
        ("`src/a.rs` `greet`", "none", "no test is named"),
    ] {
        let found = of(&row("4.2", code, tests));
        assert!(found.contains(fault), "{code} {tests}: {found}");
    }
    let other = of(&row("4.3", "`src/a.rs` `greet`", "`a::greets`"));
    assert!(
        other.contains("greet in src/a.rs has no mark of (\"5321\", \"4.3\")"),
        "{other}"
    );
    assert!(
        other.contains("src/a.rs is marked with 5321 4.2, which no rule has"),
        "{other}"
    );
    assert!(faults(&table, &files).contains(&"no rule of 5321 4.1.4".to_owned()));
    assert!(faults("", &files).contains(&"no rule of table no STARTTLS".to_owned()));
}
