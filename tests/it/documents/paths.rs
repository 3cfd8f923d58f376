//! The paths that documents name are there.

use std::path::Path;

use super::{Files, documents};

/// The paths of the repository that a document names, in text, commands and links. A part in
/// capitals stands for any name, and what fuzzing leaves behind is not there before.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| c.is_whitespace() || "`()[]\"',;#".contains(c));
    let is_path = |word: &&str| {
        let folders = [
            "src/", "tests/", "docs/", "config/", "benches/", "fuzz/", ".ci/", ".cargo/", "certs/",
        ];
        let is_pattern = word.contains(['*', '{', '…', '<', ':', '$']) || word.contains("TARGET");
        let is_left_behind = ["fuzz/target", "fuzz/new", "fuzz/findings"]
            .iter()
            .any(|name| word.starts_with(name));
        !is_pattern && !is_left_behind && folders.iter().any(|folder| word.starts_with(folder))
    };
    words
        .map(|word| word.trim_end_matches(['.', '/']))
        .filter(is_path)
}

/// The paths that are named and not there.
fn missing(documents: &Files, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let named = documents
        .iter()
        .flat_map(|(document, text)| paths(text).map(move |path| (document, path)));
    let gone = named.filter(|(_, path)| !exists(path));
    gone.map(|(document, path)| format!("{document} names {path}"))
        .collect()
}

/// No document names a file or folder that is not there.
#[test]
fn each_path_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let gone = missing(&documents(), |path| root.join(path).exists());
    assert!(gone.is_empty(), "{}", gone.join("\n"));
}

/// A path that is named and not there is found, in text, in commands and in links; not a pattern.
#[test]
fn a_path_that_is_gone_is_found() {
    let text = "See `src/gone.rs`, run\n    $ .ci/gone --all\nor read [that](docs/gone.md#how); `src/*.rs` and src/there.rs.";
    let documents = Files::from([("README.md".to_owned(), text.to_owned())]);
    let found = missing(&documents, |path| path == "src/there.rs");
    assert_eq!(
        found,
        [
            "README.md names src/gone.rs",
            "README.md names .ci/gone",
            "README.md names docs/gone.md"
        ]
    );
}
