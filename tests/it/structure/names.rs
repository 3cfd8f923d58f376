//! No two types share a name, so that a name found anywhere in `src/` leads to one definition.

use std::collections::BTreeMap;

use super::source::{Source, is_word, text};
use super::{none, sources};

/// The names that every module may give to a type of its own.
const COMMON: [&str; 2] = ["Error", "Config"];

/// Rejects each name that more than one type has. Associated types are no definitions of a type.
fn faults(sources: &[Source]) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources {
        let (tokens, mut depth) = (source.tokens(), 0_usize);
        for (at, token) in tokens.iter().enumerate() {
            let defines = match token.text {
                "{" => {
                    depth += 1;
                    false
                }
                "}" => {
                    depth = depth.saturating_sub(1);
                    false
                }
                "struct" | "enum" | "trait" | "union" => true,
                "type" => depth == 0,
                _ => false,
            };
            let name = text(&tokens, at + 1);
            if defines && is_word(name) && !COMMON.contains(&name) {
                let place = format!("src/{}:{}", source.path, token.line);
                places.entry(name.to_owned()).or_default().push(place);
            }
        }
    }
    places
        .into_iter()
        .filter(|(_, places)| places.len() > 1)
        .map(|(name, places)| format!("{}: `{name}` is several types", places.join(", ")))
        .collect()
}

#[test]
fn no_two_types_share_a_name() {
    none(&faults(&sources()));
}

#[test]
fn a_shared_name_is_found() {
    let of = |second: &str| {
        let first = "pub struct Session;\npub enum Error { Failed }\ntype Level = u8;";
        faults(&[
            Source::new("smtp/server.rs", first),
            Source::new("smtp/client.rs", second),
        ])
    };
    assert_eq!(
        of("mod tests {\n    enum Session {}\n}"),
        ["src/smtp/server.rs:1, src/smtp/client.rs:2: `Session` is several types"]
    );
    assert_eq!(of("type Level = u16;").len(), 1);
    none(&of(
        "struct Error;\nimpl Dialogue for Client {\n    type Level = u16;\n}\nfn f(of: Session) {}",
    ));
}
