//! The structure of `src/`: imports point down, files are small and say what they are, and a proof has one source.
//!
//! The order of the modules stands in [`imports`]. The length of functions, missing documentation and `unwrap` are left
//! to clippy (`Cargo.toml`, `.clippy.toml`). The second half shows each check failing on a small sample of what it forbids.

mod imports;
mod proofs;
mod source;

use std::fs;
use std::path::Path;

use source::Source;

/// Every file under `src/`.
fn house() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src/ can be read") {
            let path = entry.expect("src/ can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is UTF-8");
                let name = path.strip_prefix(&src).expect("it was found under src/");
                sources.push(Source::new(&name.to_string_lossy(), &text));
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(
        sources.iter().any(|source| source.path == "lib.rs"),
        "src/lib.rs was not found"
    );
    sources
}

fn none(faults: &[String]) {
    assert!(
        faults.is_empty(),
        "{} faults\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn imports_point_down() {
    none(&house().iter().flat_map(imports::faults).collect::<Vec<_>>());
}

/// The most lines that a file may have.
const FILE: usize = 450;

/// Rejects a file that is too long, or that does not open with what it is.
fn form(source: &Source) -> Vec<String> {
    let (path, lines) = (&source.path, source.text.lines().count());
    let first = source
        .text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    let introduced = first
        .strip_prefix("//!")
        .is_some_and(|words| !words.trim().is_empty());
    let long = (lines > FILE)
        .then(|| format!("src/{path}: {lines} lines, more than {FILE}; split it by subject"));
    let silent =
        (!introduced).then(|| format!("src/{path}:1: it must open with `//!` and say what it is"));
    long.into_iter().chain(silent).collect()
}

#[test]
fn files_are_small_and_introduced() {
    none(&house().iter().flat_map(form).collect::<Vec<_>>());
}

#[test]
fn proofs_have_one_source() {
    none(&proofs::faults(&house()));
}

/// Exactly one fault, at this line, that says this.
fn one(faults: &[String], line: usize, words: &str) {
    let place = format!(":{line}: ");
    assert!(
        matches!(faults, [fault] if fault.contains(&place) && fault.contains(words)),
        "{faults:?}"
    );
}

fn imports_of(path: &str, text: &str) -> Vec<String> {
    imports::faults(&Source::new(path, text))
}

#[test]
fn an_upward_import_is_found() {
    one(
        &imports_of("spool/mod.rs", "\nuse crate::scheduler::Due;\n"),
        2,
        "spool imports scheduler",
    );
    one(
        &imports_of("tls.rs", "fn f() { crate::handshake::shake(); }"),
        1,
        "tls imports handshake",
    );
    one(
        &imports_of(
            "tls.rs",
            "fn f(x: $crate::handshake::CompletedHandshake) {}",
        ),
        1,
        "lies above it",
    );
    one(
        &imports_of(
            "config/parse.rs",
            "type F = Box<dyn gatepost::smtp::dsn::F>;",
        ),
        1,
        "config imports dsn",
    );
    one(
        &imports_of("address.rs", "use crate::tls as words;"),
        1,
        "address imports tls",
    );
    one(
        &imports_of("demo/mod.rs", "use crate::cli::*;"),
        1,
        "demo imports cli",
    );
}

#[test]
fn a_sideways_import_is_found() {
    one(
        &imports_of("route.rs", "use crate::spool::Entry;"),
        1,
        "lies beside it",
    );
    one(
        &imports_of("inbound/session.rs", "use crate::scheduler::Due;"),
        1,
        "lies beside it",
    );
    one(
        &imports_of("inbound/session.rs", "use crate::outbound::Attempt;"),
        1,
        "kept apart",
    );
    one(
        &imports_of("outbound/mod.rs", "use crate::inbound::Session;"),
        1,
        "outbound imports inbound",
    );
}

#[test]
fn a_part_of_a_room_has_a_floor_of_its_own() {
    none(&imports_of("envelope.rs", "use crate::smtp::reply::Reply;"));
    none(&imports_of(
        "smtp/client.rs",
        "use super::reply::Reply;\nuse crate::envelope::Envelope;",
    ));
    one(
        &imports_of(
            "envelope.rs",
            "use crate::smtp::{command::Command, reply::Reply};",
        ),
        1,
        "envelope imports smtp (",
    );
    one(
        &imports_of("smtp/reply.rs", "use super::command::Command;"),
        1,
        "smtp::reply imports smtp",
    );
    one(
        &imports_of("smtp/reply.rs", "use crate::envelope::Envelope;"),
        1,
        "smtp::reply imports envelope",
    );
    one(
        &imports_of(
            "smtp/reply.rs",
            "mod tests { use super::*; use super::super::command; }",
        ),
        1,
        "imports smtp",
    );
}

#[test]
fn groups_are_read_to_their_last_leaf() {
    let text = "use crate::{\n    address::{Domain, Host},\n    tls::{self, NamePattern as N},\n    scheduler::{\n        \
                Due,\n    },\n};\nuse std::{fmt, io};\n";
    one(
        &imports_of("config/mod.rs", text),
        5,
        "config imports scheduler (`crate::scheduler::Due`)",
    );
    one(
        &imports_of("config/mod.rs", "use {std::fmt, crate::{tls, inbound}};"),
        1,
        "config imports inbound",
    );
}

#[test]
fn a_room_cannot_be_left_by_its_parents() {
    one(
        &imports_of("smtp/server/mod.rs", "use super::super::address;"),
        1,
        "climbs out",
    );
    one(
        &imports_of("smtp/server/mod.rs", "use super::{reply, super::tls};"),
        1,
        "climbs out",
    );
    one(
        &imports_of("tls.rs", "use self::super::spool;"),
        1,
        "climbs out",
    );
    one(
        &imports_of(
            "tls.rs",
            "mod tests { use super::*; mod deep { use super::super::super::x; } }",
        ),
        1,
        "climbs out",
    );
    one(
        &imports_of("tls.rs", "mod tests { use super::*; }\nuse super::spool;"),
        2,
        "climbs out",
    );
    none(&imports_of(
        "smtp/server/mod.rs",
        "use super::reply::Reply;\nuse self::state::State;\npub(super) fn f() {}",
    ));
    none(&imports_of(
        "tls.rs",
        "mod tests { use super::*; mod deep { use super::super::judge; } }",
    ));
}

#[test]
fn the_house_cannot_be_taken_in_whole_or_by_another_name() {
    one(
        &imports_of("tls.rs", "use crate as house;"),
        1,
        "takes in the whole house",
    );
    one(
        &imports_of("tls.rs", "use crate::*;"),
        1,
        "leads to no room",
    );
    one(
        &imports_of("tls.rs", "use crate::{self as house};"),
        1,
        "leads to no room",
    );
    one(
        &imports_of("tls.rs", "#[path = \"../spool.rs\"]\nmod other;"),
        1,
        "#[path]",
    );
    one(
        &imports_of("lib.rs", "pub mod tls;\npub use tls::Clearance;"),
        2,
        "imports nothing",
    );
}

#[test]
fn a_room_without_a_floor_is_found() {
    one(
        &imports_of("common.rs", "//! Things."),
        1,
        "`common` has no floor",
    );
    one(
        &imports_of("lib.rs", "pub mod tls;\npub mod common;"),
        2,
        "`common` has no floor",
    );
    one(
        &imports_of("tls.rs", "use crate::common::f;"),
        1,
        "leads to no room",
    );
    one(
        &imports_of("main.rs", "fn main() { gatepost::common::f() }"),
        1,
        "leads to no room",
    );
}

#[test]
fn what_points_down_or_is_no_import_passes() {
    none(&imports_of("main.rs", "fn main() { gatepost::cli::run() }"));
    none(&imports_of(
        "scheduler.rs",
        "use crate::outbound::{Attempt, AttemptResult};\nuse crate::config::Config;",
    ));
    none(&imports_of(
        "failure.rs",
        "use crate::{config::OnFailure, tls::Refusal};",
    ));
    none(&imports_of(
        "tls.rs",
        "//! See [`crate::handshake`].\n/* crate::spool /* crate::cli */ crate::dsn */",
    ));
    none(&imports_of(
        "tls.rs",
        "const FILTER: &str = \"gatepost::storage::spool\"; const R: &str = r#\"\"crate::spool\"\"#;",
    ));
    none(&imports_of(
        "tls.rs",
        "pub(crate) fn f<'a>(x: &'a str, c: char) -> bool { c == '\"' || c == '\\'' }",
    ));
}

#[test]
fn growth_is_found() {
    let long =
        |lines: usize| Source::new("tls.rs", &format!("//! The judge.{}", "\n".repeat(lines)));
    none(&form(&long(450)));
    assert!(matches!(&form(&long(451))[..], [fault] if fault.contains("451 lines")));
}

#[test]
fn a_silent_module_is_found() {
    let of = |text: &str| form(&Source::new("tls.rs", text));
    one(
        &of("use std::fmt;\n//! Too late.\n"),
        1,
        "it must open with `//!`",
    );
    one(&of("//!\nfn f() {}"), 1, "it must open with `//!`");
    none(&of("//! The judge.\n"));
}

#[test]
fn a_forged_proof_is_found() {
    let of = |path: &str, text: &str| proofs::faults(&[Source::new(path, text)]);
    one(
        &of("outbound/mod.rs", "let c = Clearance { outcome };"),
        1,
        "`Clearance { … }` is for tls alone",
    );
    one(
        &of("inbound/mod.rs", "answer(crate::spool::Receipt { id })"),
        1,
        "`Receipt { … }` is for spool alone",
    );
    none(&of("tls/judge.rs", "Clearance { outcome }"));
    none(&of(
        "outbound/mod.rs",
        "impl From<X> for tls::Clearance {}\nfn f() -> &Clearance {}\nfn g() -> Clearance {}",
    ));
    let sworn = |second: &str| {
        let first = "impl server::Durable for Receipt {}";
        proofs::faults(&[
            Source::new("spool/mod.rs", first),
            Source::new("smtp/server.rs", second),
        ])
    };
    none(&sworn(
        "trait Durable {}\n#[cfg(test)]\nmod tests { impl Durable for () {} }",
    ));
    assert!(sworn("impl Durable for () {}")[0].contains("spool/mod.rs:1, src/smtp/server.rs:1"));
}
