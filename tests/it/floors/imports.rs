//! Which way a file's imports point.

use std::cmp::Ordering;

use super::source::{Source, Token, is_word, text};

/// The house, from the top down. A room may import what lies on a floor below it; rooms on one floor
/// never import each other. A part of a room can have a floor of its own.
const FLOORS: [&[&str]; 25] = [
    &["main"],
    &["cli"],
    &["demo", "explain"],
    &["daemon"],
    // Movers: tokio tasks.
    &["admin"],
    &["inbound", "scheduler"],
    &["outbound"],
    &["tlsrpt"],
    // One configuration, and what is built from it.
    &["running_config"],
    // Hands: each touches one piece of the world.
    &["discovery"],
    &["https"],
    &["spool", "evidence", "route", "handshake"],
    &["dns"],
    &["monitor", "ownership"],
    // Rules: pure decisions over words.
    &["dsn"],
    &["failure"],
    &["access"],
    &["connector"],
    &["config"],
    &["tls"],
    // Words: values and grammar. A reply knows neither dialogue nor envelope, and both know replies.
    &["smtp"],
    &["envelope"],
    &["smtp::reply"],
    &["address", "networks"],
    // The front page: it names the rooms and imports nothing.
    &["lib"],
];

/// What must not meet although a floor lies between: mail that comes in is safe in the spool before
/// anything goes out.
const APART: [(&str, &str); 1] = [("inbound", "outbound")];

/// How paths to a room begin.
const ROOTS: [&str; 4] = ["crate", "gatepost", "super", "self"];

/// What is wrong with a file's imports.
pub(crate) fn faults(source: &Source) -> Vec<String> {
    let tokens = source.tokens();
    let mut faults = Vec::new();
    let mut complain =
        |line: usize, what: String| faults.push(format!("src/{}:{line}: {what}", source.path));
    if floor(source.room()).is_none() {
        complain(
            1,
            format!(
                "`{}` has no floor; give it one in {}",
                source.room(),
                file!()
            ),
        );
    }
    for token in tokens
        .windows(3)
        .filter(|at| at[0].text == "#" && at[1].text == "[" && at[2].text == "path")
    {
        complain(
            token[0].line,
            "`#[path]` hides which room a module belongs to".to_owned(),
        );
    }
    if source.path == "lib.rs" {
        for token in tokens.iter().filter(|token| token.text == "use") {
            complain(
                token.line,
                "lib.rs names the rooms and imports nothing".to_owned(),
            );
        }
        for at in tokens
            .windows(2)
            .filter(|at| at[0].text == "mod" && floor(at[1].text).is_none())
        {
            complain(
                at[1].line,
                format!("`{}` has no floor; give it one in {}", at[1].text, file!()),
            );
        }
    }
    let module = source.module();
    let from = if module.is_empty() {
        source.room().to_owned()
    } else {
        room(&module)
    };
    for path in paths(&tokens, module.len()) {
        if let Some(fault) = fault_of(&from, &module, &path) {
            complain(path.line, fault);
        }
    }
    faults
}

/// The room that a module or a path from the root leads to: the part of a room where that has a floor.
fn room(words: &[&str]) -> String {
    let part = words[..words.len().min(2)].join("::");
    if floor(&part).is_some() {
        part
    } else {
        words[0].to_owned()
    }
}

/// One path that begins at a crate's root, at a parent or at the module itself.
struct Path<'a> {
    line: usize,
    /// How many modules lie around it, inline ones included.
    depth: usize,
    words: Vec<&'a str>,
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&room))
}

fn fault_of(from: &str, module: &[&str], path: &Path<'_>) -> Option<String> {
    let written = path.words.join("::");
    let to = match path.words[..] {
        ["crate" | "gatepost", ref to @ ..] if !to.is_empty() => room(to),
        ["crate" | "gatepost"] => {
            return Some(format!("`{written}` takes in the whole house; name a room"));
        }
        _ => {
            let climbed = path.words.iter().filter(|&&word| word == "super").count();
            if climbed > 0 && climbed >= path.depth {
                return Some(format!(
                    "`{written}` climbs out of its room; write `crate::`"
                ));
            }
            let below = path
                .words
                .iter()
                .filter(|word| !matches!(**word, "self" | "super"));
            let around = module.iter().take(path.depth - climbed);
            room(&around.chain(below).copied().collect::<Vec<_>>())
        }
    };
    let (Some(above), Some(below)) = (floor(from), floor(&to)) else {
        return Some(format!("`{written}` leads to no room of the house"));
    };
    if from == to || (above < below && !APART.contains(&(from, to.as_str()))) {
        return None;
    }
    let reason = match above.cmp(&below) {
        Ordering::Less => "and the two are kept apart",
        Ordering::Equal => "which lies beside it",
        Ordering::Greater => "which lies above it",
    };
    Some(format!("{from} imports {to} (`{written}`), {reason}"))
}

/// Every path in a file, those inside groups one by one.
fn paths<'a>(tokens: &[Token<'a>], around: usize) -> Vec<Path<'a>> {
    let (mut found, mut inline, mut braces, mut at) = (Vec::new(), Vec::new(), 0_usize, 0);
    while at < tokens.len() {
        match tokens[at].text {
            "{" => {
                braces += 1;
                if at >= 2 && tokens[at - 2].text == "mod" {
                    inline.push(braces);
                }
            }
            "}" => {
                inline.pop_if(|depth| *depth == braces);
                braces = braces.saturating_sub(1);
            }
            word if ROOTS.contains(&word) && begins_path(tokens, at) => {
                let start = found.len();
                at = follow(tokens, at, &[], &mut found);
                for path in &mut found[start..] {
                    path.depth = around + inline.len();
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// `crate::…`, or `crate as …`; neither `pub(crate)` nor `path::to::self`.
fn begins_path(tokens: &[Token<'_>], at: usize) -> bool {
    let before = at.checked_sub(1).map_or("", |before| text(tokens, before));
    before != "::" && before != "." && matches!(text(tokens, at + 1), "::" | "as")
}

/// Follows a path from `at`, through groups, and returns where it ends.
fn follow<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    before: &[&'a str],
    found: &mut Vec<Path<'a>>,
) -> usize {
    let mut words = before.to_vec();
    let line = tokens[at].line;
    loop {
        match text(tokens, at) {
            "{" => {
                at += 1;
                while !matches!(text(tokens, at), "}" | "") {
                    let comma = text(tokens, at) == ",";
                    at = if comma {
                        at + 1
                    } else {
                        follow(tokens, at, &words, found)
                    };
                }
                return at + 1;
            }
            word if is_word(word) || word == "*" => {
                words.push(word);
                at += 1;
            }
            // `path::<T>` and whatever else is no import: what came so far is the path.
            _ => at += usize::from(words.len() == before.len()),
        }
        if text(tokens, at) != "::" || text(tokens, at + 1) == "<" {
            found.push(Path {
                line,
                depth: 0,
                words,
            });
            return if text(tokens, at) == "as" { at + 2 } else { at };
        }
        at += 1;
    }
}
