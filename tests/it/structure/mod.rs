//! The structure of `src/`: imports point down and form no circle, files are small and introduced,
//! no two types share a name, and a proof has one source.
//!
//! The layers stand in [`imports`]. The length of functions, missing documentation and `unwrap` are
//! left to clippy (`Cargo.toml`, `.clippy.toml`). The second half shows each check failing on a
//! small sample of what it forbids.

mod circles;
mod imports;
mod names;
mod proofs;
mod source;

use std::fs;
use std::path::Path;

use source::Source;

/// Every file under `src/`.
fn sources() -> Vec<Source> {
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
    none(
        &sources()
            .iter()
            .flat_map(imports::faults)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn files_form_no_circle() {
    none(&circles::faults(&sources()));
}

/// The most lines that a file may have.
const FILE: usize = 600;

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
    none(&sources().iter().flat_map(form).collect::<Vec<_>>());
}

#[test]
fn proofs_have_one_source() {
    none(&proofs::faults(&sources()));
}

/// Exactly one fault, at this line, that says this.
fn assert_one_fault(faults: &[String], line: usize, words: &str) {
    let place = format!(":{line}: ");
    assert!(
        matches!(faults, [fault] if fault.contains(&place) && fault.contains(words)),
        "{faults:?}"
    );
}

fn imports_of(path: &str, text: &str) -> Vec<String> {
    imports::faults(&Source::new(path, text))
}

/// A file, an import in it, and the reason why it is rejected.
type BadImport = (&'static str, &'static str, &'static str);

const BAD_IMPORTS: [BadImport; 23] = [
    (
        "storage/spool/mod.rs",
        "use crate::relay::scheduler::Due;",
        "imports relay::scheduler",
    ),
    (
        "policy/tls.rs",
        "fn f() { crate::net::tls_io::shake(); }",
        "in a layer above",
    ),
    (
        "policy/tls.rs",
        "fn f(x: $crate::net::tls_io::Done) {}",
        "in a layer above",
    ),
    (
        "policy/tls.rs",
        "type F = Box<dyn gatepost::config::F>;",
        "policy::tls imports config",
    ),
    (
        "smtp/address.rs",
        "use crate::policy::tls as words;",
        "smtp::address imports policy",
    ),
    ("demo/mod.rs", "use crate::cli::*;", "demo imports cli"),
    (
        "relay/outbound/mod.rs",
        "use super::inbound::Session;",
        "imports relay::inbound",
    ),
    (
        "net/route.rs",
        "use crate::net::tls_io::Trust;",
        "in the same layer",
    ),
    (
        "relay/inbound/session.rs",
        "use crate::relay::scheduler::Due;",
        "in the same layer",
    ),
    (
        "relay/inbound/session.rs",
        "use crate::relay::outbound::Attempt;",
        "kept apart",
    ),
    (
        "smtp/reply.rs",
        "use super::command::Command;",
        "smtp::reply imports smtp",
    ),
    (
        "smtp/reply.rs",
        "mod t { use super::*; use super::super::data; }",
        "imports smtp",
    ),
    (
        "config/mod.rs",
        "use {std::fmt, crate::{policy::tls, admin}};",
        "imports admin",
    ),
    (
        "config/mod.rs",
        "use crate::{smtp::{self, reply::X}, cli::{Y}};",
        "(`crate::cli::Y`)",
    ),
    (
        "smtp/server/mod.rs",
        "use super::super::super::net;",
        "climbs out",
    ),
    (
        "policy/tls.rs",
        "mod t { use super::super::super::super::x; }",
        "climbs out",
    ),
    (
        "policy/tls.rs",
        "use crate as everything;",
        "imports the whole crate",
    ),
    (
        "policy/tls.rs",
        "use crate::*;",
        "no module that has a layer",
    ),
    (
        "policy/tls.rs",
        "use crate::common::f;",
        "no module that has a layer",
    ),
    (
        "main.rs",
        "fn main() { gatepost::common::f() }",
        "no module that has a layer",
    ),
    (
        "policy/tls.rs",
        "#[path = \"../spool.rs\"]\nmod other;",
        "#[path]",
    ),
    (
        "lib.rs",
        "pub mod policy; pub use policy::tls::Clearance;",
        "imports nothing",
    ),
    ("common.rs", "//! Things.", "`common` has no layer"),
];

/// Upward, sideways, or by another name: imports that are rejected, with the reason.
#[test]
fn a_bad_import_is_found() {
    for (path, import, reason) in BAD_IMPORTS {
        assert_one_fault(&imports_of(path, import), 1, reason);
    }
}

/// Imports that point down, and text that looks like an import and is none.
#[test]
fn a_good_import_passes() {
    for (path, text) in [
        ("main.rs", "fn main() { gatepost::cli::run() }"),
        (
            "relay/scheduler.rs",
            "use crate::relay::outbound::Attempt; use crate::config::Config;",
        ),
        (
            "policy/failure.rs",
            "use crate::{policy::connector::OnFailure, policy::tls::Refusal};",
        ),
        ("smtp/envelope.rs", "use crate::smtp::reply::Reply;"),
        (
            "smtp/client.rs",
            "use super::reply::Reply; use crate::smtp::envelope::Envelope;",
        ),
        (
            "smtp/server/mod.rs",
            "use super::reply::Reply; use self::state::S; pub(super) fn f() {}",
        ),
        (
            "policy/tls.rs",
            "mod t { use super::*; mod deep { use super::super::judge; } }",
        ),
        (
            "policy/tls.rs",
            "//! [`crate::net`].\n/* crate::cli /* crate::cli */ crate::cli */",
        ),
        (
            "policy/tls.rs",
            "const F: &str = \"gatepost::cli\"; const R: &str = r#\"\"crate::cli\"\"#;",
        ),
        (
            "policy/tls.rs",
            "fn f<'a>(x: &'a str, c: char) -> bool { c == '\"' || c == '\\'' }",
        ),
    ] {
        none(&imports_of(path, text));
    }
}

/// A name that a file defines is followed through re-exports and imported modules.
#[test]
fn a_circle_is_found() {
    let of = |files: &[(&str, &str)]| {
        let sources = files.iter().map(|(path, text)| Source::new(path, text));
        circles::faults(&sources.collect::<Vec<_>>())
    };
    let parent = "mod b;\npub use b::B;\npub struct A;";
    let child = "use super::A;\npub struct B(A);";
    none(&of(&[("a/mod.rs", parent), ("a/b.rs", child)]));
    let tied = format!("{parent} pub struct C(B);");
    let circle = of(&[("a/mod.rs", &tied), ("a/b.rs", child)]);
    assert_eq!(circle, ["a uses a::b; a::b uses a"]);
    let facade = ("a/mod.rs", "mod b;\nmod c;\npub use b::B;\npub use c::C;");
    let circle = of(&[
        facade,
        ("a/b.rs", "pub struct B(super::C);"),
        ("a/c.rs", "use crate::a;\npub struct C(a::B);"),
    ]);
    assert_eq!(circle, ["a::b uses a::c; a::c uses a::b"]);
    none(&of(&[
        facade,
        (
            "a/b.rs",
            "pub struct B;\n#[cfg(test)]\nmod tests { use super::super::C; }",
        ),
        ("a/c.rs", "use super::B;\npub struct C(B);"),
    ]));
    let called = of(&[
        ("a.rs", "mod b;\npub fn f() { b::g() }\npub fn h() {}"),
        ("a/b.rs", "pub fn g() { super::h() }"),
    ]);
    assert_eq!(called.len(), 1, "{called:?}");
}

#[test]
fn growth_is_found() {
    let long = |lines: usize| {
        Source::new(
            "policy/tls.rs",
            &format!("//! The judge.{}", "\n".repeat(lines)),
        )
    };
    none(&form(&long(600)));
    assert!(matches!(&form(&long(601))[..], [fault] if fault.contains("601 lines")));
}

#[test]
fn a_silent_module_is_found() {
    let of = |text: &str| form(&Source::new("policy/tls.rs", text));
    assert_one_fault(
        &of("use std::fmt;\n//! Too late.\n"),
        1,
        "it must open with `//!`",
    );
    assert_one_fault(&of("//!\nfn f() {}"), 1, "it must open with `//!`");
    none(&of("//! The judge.\n"));
}

#[test]
fn a_forged_proof_is_found() {
    let of = |path: &str, text: &str| proofs::faults(&[Source::new(path, text)]);
    assert_one_fault(
        &of("relay/outbound/mod.rs", "let c = Clearance { outcome };"),
        1,
        "`Clearance { … }` is for policy::tls alone",
    );
    assert_one_fault(
        &of(
            "relay/inbound/mod.rs",
            "answer(crate::spool::Receipt { id })",
        ),
        1,
        "`Receipt { … }` is for storage::spool alone",
    );
    assert_one_fault(
        &of("relay/scheduler/state.rs", "settle(Claim { id, epoch })"),
        1,
        "`Claim { … }` is for storage::spool alone",
    );
    none(&of("policy/tls/judge.rs", "Clearance { outcome }"));
    none(&of(
        "relay/outbound/mod.rs",
        "impl From<X> for tls::Clearance {}\nfn f() -> &Clearance {}\nfn g() -> Clearance {}",
    ));
    let sworn = |second: &str| {
        let first = "impl server::Durable for Receipt {}";
        proofs::faults(&[
            Source::new("storage/spool/mod.rs", first),
            Source::new("smtp/server.rs", second),
        ])
    };
    none(&sworn(
        "trait Durable {}\n#[cfg(test)]\nmod tests { impl Durable for () {} }",
    ));
    assert!(
        sworn("impl Durable for () {}")[0].contains("storage/spool/mod.rs:1, src/smtp/server.rs:1")
    );
}
