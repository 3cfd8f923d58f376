//! Proofs have one source: the judge of TLS alone makes a clearance, the spool alone a receipt and a
//! claim.

use super::source::{Source, Token, end_of_item, text};

/// Proofs, and the module whose files alone may make one.
const PROOFS: [(&str, &str); 3] = [
    ("Clearance", "policy::tls"),
    ("Receipt", "storage::spool"),
    ("Claim", "storage::spool"),
];
/// The only type of proof for which the final 250 may be written.
const FINAL_REPLY: &str = "Durable";

/// Proofs made in a module that may not make them, and a second source of the final reply.
pub(crate) fn faults(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut sworn = Vec::new();
    for source in sources {
        let tokens = source.tokens();
        for (at, pair) in tokens.windows(2).enumerate() {
            let place = format!("src/{}:{}", source.path, pair[0].line);
            match PROOFS.iter().find(|(proof, _)| *proof == pair[0].text) {
                Some((proof, maker))
                    if pair[1].text == "{" && !source.is_in(maker) && !names_type(&tokens, at) =>
                {
                    faults.push(format!(
                        "{place}: `{proof} {{ … }}` is for {maker} alone to make"
                    ));
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
        faults.push(format!(
            "`impl {FINAL_REPLY} for` more than once: {}",
            sworn.join(", ")
        ));
    }
    faults
}

/// Returns true if `Name {` opens a body (`impl Name {`, `-> Name {`) and not a value.
fn names_type(tokens: &[Token<'_>], mut at: usize) -> bool {
    while at >= 2 && text(tokens, at - 1) == "::" {
        at -= 2;
    }
    let before = at.checked_sub(1).map_or("", |before| text(tokens, before));
    matches!(
        before,
        "impl" | "for" | "struct" | "enum" | "trait" | "union" | "mod" | ">" | "&"
    )
}

/// The tokens that are not under `#[cfg(test)]`.
pub(crate) fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
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

/// Returns the start of the item that a `#[cfg(test)]` at `at` marks, after its other attributes.
fn test_item(tokens: &[Token<'_>], at: usize) -> Option<usize> {
    let attribute = ["#", "[", "cfg", "(", "test", ")", "]"];
    if !attribute
        .iter()
        .enumerate()
        .all(|(offset, word)| text(tokens, at + offset) == *word)
    {
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
