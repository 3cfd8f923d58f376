//! The layers: which module may import which.

use std::cmp::Ordering;

use super::source::{Source, Token, is_word, text};

/// The layers, from the top down. A module may import from the layers below its own; modules of one
/// layer never import each other. `a::b` has a layer of its own, apart from the rest of `a`.
const LAYERS: [&[&str]; 34] = [
    &["main"],
    &["cli"],
    &["demo"],
    &["daemon"],
    &["admin"],
    &["explain"],
    // Services, which are tokio tasks.
    &["relay"],
    &["relay::inbound", "relay::scheduler"],
    &["relay::outbound"],
    &["relay::tlsrpt", "relay::recipients"],
    // One configuration, and what is built from it; the memory that all share.
    &["relay::running_config", "relay::buffer_memory"],
    &["relay::users", "relay::smart_host_logins"],
    // The lists of recipients, and the answers about them.
    &["relay::recipient_tables"],
    // One part of the world each.
    &["discovery"],
    &["storage::spool", "storage::evidence"],
    &["storage"],
    &["net"],
    &["net::https", "net::ldap"],
    &["net::secret"],
    &["net::route", "net::tls_io"],
    &["net::dns", "net::revocation"],
    &["telemetry"],
    &["config"],
    // Rules: pure decisions.
    &["policy"],
    &["policy::failure", "policy::relay_access"],
    &["policy::layers"],
    &["policy::connector"],
    &[
        "policy::tls",
        "policy::location",
        "policy::networks",
        "policy::https_url",
    ],
    // Grammar and values.
    &["smtp::dsn"],
    &["smtp"],
    &["smtp::envelope"],
    &["smtp::reply"],
    &["smtp::address"],
    // The front page: it declares modules and imports nothing.
    &["lib"],
];

/// Modules that must not meet although one layer lies below the other: mail that comes in is safe
/// in the spool before anything goes out.
const APART: [(&str, &str); 1] = [("relay::inbound", "relay::outbound")];

/// The first segments of paths that start at a root.
const ROOTS: [&str; 4] = ["crate", "gatepost", "super", "self"];

/// The faults of a file's imports.
pub(crate) fn faults(source: &Source) -> Vec<String> {
    let tokens = source.tokens();
    let module = source.module();
    let from = match &module[..] {
        [] => source.path.trim_end_matches(".rs").to_owned(),
        module => layered(module),
    };
    let mut faults = Vec::new();
    let mut report =
        |line: usize, fault: String| faults.push(format!("src/{}:{line}: {fault}", source.path));
    if layer(&from).is_none() {
        report(
            1,
            format!("`{from}` has no layer; give it one in {}", file!()),
        );
    }
    for token in tokens.windows(3) {
        if token[0].text == "#" && token[1].text == "[" && token[2].text == "path" {
            report(
                token[0].line,
                "`#[path]` hides the layer of a module".to_owned(),
            );
        }
        if source.path == "lib.rs" && token[0].text == "use" {
            report(
                token[0].line,
                "lib.rs declares modules and imports nothing".to_owned(),
            );
        }
    }
    for path in paths(&tokens, module.len(), |_| false) {
        if let Some(fault) = fault_of(&from, &module, &path) {
            report(path.line, fault);
        }
    }
    faults
}

/// The name under which a module stands in [`LAYERS`].
fn layered(words: &[&str]) -> String {
    let part = words[..words.len().min(2)].join("::");
    if layer(&part).is_some() {
        part
    } else {
        words[0].to_owned()
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// One path that begins at the crate's root, at a parent or at the module itself.
pub(crate) struct Path<'a> {
    line: usize,
    /// The number of modules around it, inline ones included.
    depth: usize,
    words: Vec<&'a str>,
    /// The name under which an import is known in the file.
    pub(crate) name: &'a str,
    /// `None` for a path outside of `use`.
    pub(crate) import: Option<Import>,
}

/// A kind of `use`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Import {
    /// `use`.
    Private,
    /// `pub use`, `pub(super) use`.
    Public,
}

impl<'a> Path<'a> {
    /// The path from the crate's root; `None` if it climbs out of it.
    pub(crate) fn absolute(&self, module: &[&'a str]) -> Option<Vec<&'a str>> {
        if matches!(self.words[0], "crate" | "gatepost") {
            return Some(self.words[1..].to_vec());
        }
        let climbed = self.words.iter().filter(|word| **word == "super").count();
        if climbed > 0 && climbed >= self.depth {
            return None;
        }
        let below = self
            .words
            .iter()
            .filter(|word| !matches!(**word, "self" | "super"));
        Some(
            module
                .iter()
                .take(self.depth - climbed)
                .chain(below)
                .copied()
                .collect(),
        )
    }
}

fn fault_of(from: &str, module: &[&str], path: &Path<'_>) -> Option<String> {
    let written = path.words.join("::");
    let to = match path.absolute(module) {
        None => {
            return Some(format!(
                "`{written}` climbs out of the crate; write `crate::`"
            ));
        }
        Some(words) if words.is_empty() => {
            return Some(format!(
                "`{written}` imports the whole crate; name a module"
            ));
        }
        Some(words) => layered(&words),
    };
    let (Some(above), Some(below)) = (layer(from), layer(&to)) else {
        return Some(format!("`{written}` leads to no module that has a layer"));
    };
    if from == to || (above < below && !APART.contains(&(from, to.as_str()))) {
        return None;
    }
    let reason = match above.cmp(&below) {
        Ordering::Less => "and the two are kept apart",
        Ordering::Equal => "which is in the same layer",
        Ordering::Greater => "which is in a layer above",
    };
    Some(format!("{from} imports {to} (`{written}`), {reason}"))
}

/// Every path in a file that begins at a root or at a module for which `is_child` returns true;
/// those inside groups one by one. `around` is the number of modules around the file's items.
pub(crate) fn paths<'a>(
    tokens: &[Token<'a>],
    around: usize,
    is_child: impl Fn(&'a str) -> bool,
) -> Vec<Path<'a>> {
    let (mut found, mut inline, mut braces, mut at) = (Vec::new(), Vec::new(), 0_usize, 0);
    let mut import = None;
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
            "use" => {
                let before = at.checked_sub(1).map_or("", |before| text(tokens, before));
                let public = matches!(before, "pub" | ")");
                import = Some(if public {
                    Import::Public
                } else {
                    Import::Private
                });
            }
            ";" => import = None,
            word if begins_path(tokens, at) && (ROOTS.contains(&word) || is_child(word)) => {
                let start = found.len();
                at = follow(tokens, at, &[], &mut found);
                for path in &mut found[start..] {
                    path.depth = around + inline.len();
                    path.import = import;
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
            let alias = text(tokens, at) == "as";
            let name = if alias {
                text(tokens, at + 1)
            } else {
                last_name(&words)
            };
            found.push(Path {
                line,
                depth: 0,
                words,
                name,
                import: None,
            });
            return if alias { at + 2 } else { at };
        }
        at += 1;
    }
}

fn last_name<'a>(words: &[&'a str]) -> &'a str {
    words
        .iter()
        .rev()
        .find(|word| **word != "self")
        .copied()
        .unwrap_or_default()
}
