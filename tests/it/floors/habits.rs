//! The habits of the house: small files and functions, a first line that says what a module is, no
//! `unwrap` outside tests, and proofs that have one source.

use super::source::{Source, Token, end_of_item, is_word, text};

/// Lines in a file, at most.
const FILE: usize = 450;
/// Lines in a function, from its `fn` to its closing brace, at most.
const FUNCTION: usize = 60;

/// Proofs, and the room whose files alone may make one.
const PROOFS: [(&str, &str); 2] = [("Clearance", "tls"), ("Receipt", "spool")];
/// What a proof must be for the final 250 to be written: one type and no other.
const FINAL_REPLY: &str = "Durable";

/// Files and functions that have grown too long.
pub(crate) fn too_long(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = source.text.lines().count();
    if lines > FILE {
        faults.push(format!("src/{}: {lines} lines, more than {FILE}: is there a second room inside?", source.path));
    }
    let tokens = source.tokens();
    for (at, pair) in tokens.windows(2).enumerate() {
        // A type such as `fn(u8) -> u8` has no name and no body.
        if pair[0].text != "fn" || !is_word(pair[1].text) {
            continue;
        }
        let Some(end) = tokens.get(end_of_item(&tokens, at)) else { continue };
        let lines = end.line - pair[0].line + 1;
        if lines > FUNCTION {
            let (path, line, name) = (&source.path, pair[0].line, pair[1].text);
            faults.push(format!("src/{path}:{line}: `fn {name}` has {lines} lines, more than {FUNCTION}"));
        }
    }
    faults
}

/// A module that doesn't say on its first line what it is.
pub(crate) fn no_introduction(source: &Source) -> Vec<String> {
    let first = source.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if first.strip_prefix("//!").is_some_and(|words| !words.trim().is_empty()) {
        return Vec::new();
    }
    vec![format!("src/{}:1: it must open with `//!` and say what it is", source.path)]
}

/// Every `unwrap` outside tests, in all files together: a parent says which of its files are tests.
pub(crate) fn unwraps(sources: &[Source]) -> Vec<String> {
    let tests: Vec<String> = sources.iter().flat_map(test_modules).collect();
    let is_test = |source: &Source| {
        let module = source.module().join("::");
        tests.iter().any(|test| module == *test || module.starts_with(&format!("{test}::")))
    };
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| !is_test(source)) {
        let tokens = source.tokens();
        for token in without_tests(&tokens).into_iter().filter(|token| token.text == "unwrap") {
            let (path, line) = (&source.path, token.line);
            faults.push(format!("src/{path}:{line}: `unwrap`; handle it, or `expect` with the invariant"));
        }
    }
    faults
}

/// Proofs made in a room that may not make them, and a second source of the final reply.
pub(crate) fn forged_proofs(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut sworn = Vec::new();
    for source in sources {
        let tokens = source.tokens();
        for (at, pair) in tokens.windows(2).enumerate() {
            let place = format!("src/{}:{}", source.path, pair[0].line);
            match PROOFS.iter().find(|(proof, _)| *proof == pair[0].text) {
                Some((proof, room)) if pair[1].text == "{" && source.room() != *room && !names_type(&tokens, at) => {
                    faults.push(format!("{place}: `{proof} {{ … }}` is for {room} alone to make"));
                }
                _ => {}
            }
        }
        // A test's own stand-in never reaches a real client.
        for pair in without_tests(&tokens).windows(2) {
            if pair[0].text == FINAL_REPLY && pair[1].text == "for" {
                sworn.push(format!("src/{}:{}", source.path, pair[0].line));
            }
        }
    }
    if sworn.len() > 1 {
        faults.push(format!("`impl {FINAL_REPLY} for` more than once: {}", sworn.join(", ")));
    }
    faults
}

/// Whether `Name {` opens a body (`impl Name {`, `-> Name {`) and not a value.
fn names_type(tokens: &[Token<'_>], mut at: usize) -> bool {
    while at >= 2 && text(tokens, at - 1) == "::" {
        at -= 2;
    }
    let before = at.checked_sub(1).map_or("", |before| text(tokens, before));
    matches!(before, "impl" | "for" | "struct" | "enum" | "trait" | "union" | "mod" | ">" | "&")
}

/// The modules that a file declares as tests in files of their own.
fn test_modules(source: &Source) -> Vec<String> {
    let tokens = source.tokens();
    let name = |at: usize| {
        let declared = text(&tokens, at) == "mod" && text(&tokens, at + 2) == ";";
        declared.then(|| [source.module(), vec![text(&tokens, at + 1)]].concat().join("::"))
    };
    (0..tokens.len()).filter_map(|at| test_item(&tokens, at)).filter_map(name).collect()
}

/// The tokens that are not under `#[cfg(test)]`.
fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if let Some(item) = test_item(tokens, at) {
            at = end_of_item(tokens, item) + 1;
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

/// Where the item begins that a `#[cfg(test)]` at `at` marks, behind its other attributes.
fn test_item(tokens: &[Token<'_>], at: usize) -> Option<usize> {
    let attribute = ["#", "[", "cfg", "(", "test", ")", "]"];
    if !attribute.iter().enumerate().all(|(offset, word)| text(tokens, at + offset) == *word) {
        return None;
    }
    let mut item = at + attribute.len();
    while text(tokens, item) == "#" {
        let (mut depth, mut end) = (0_usize, item + 1);
        loop {
            match text(tokens, end) {
                "[" => depth += 1,
                "]" => depth -= 1,
                "" => return None,
                _ => {}
            }
            end += 1;
            if depth == 0 {
                break;
            }
        }
        item = end;
    }
    Some(item)
}
