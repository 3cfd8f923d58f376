//! Coverage-guided fuzzing of every parser that a stranger can reach. `docs/fuzzing.md` explains
//! how to run it.
//!
//! Each target checks more than the absence of panics: accepted input is written out and parsed
//! again, input in one piece and in many gives the same result, a second and simpler implementation
//! agrees, and output and work are bounded.
#![forbid(unsafe_code)]

mod address;
mod bdat;
mod certificate;
mod client;
mod command;
mod cuts;
mod data;
mod dns;
mod envelope;
mod policy;
mod proxy;
mod reply;
mod sendmail;
mod session;
mod talk;
mod tlsa;

use std::sync::LazyLock;

/// A target: its name, which is that of its corpus, and the function that runs one input.
type Target = (&'static str, fn(&[u8]));

/// All targets.
const TARGETS: [Target; 14] = [
    ("address", address::run),
    ("bdat", bdat::run),
    ("certificate", certificate::run),
    ("client", client::run),
    ("command", command::run),
    ("data", data::run),
    ("dns", dns::run),
    ("envelope", envelope::run),
    ("policy", policy::run),
    ("proxy", proxy::run),
    ("reply", reply::run),
    ("sendmail", sendmail::run),
    ("session", session::run),
    ("tlsa", tlsa::run),
];

/// Returns the target that `FUZZ_TARGET` names.
static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let Some((_, run)) = TARGETS.iter().find(|(known, _)| *known == name) else {
        let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!("set FUZZ_TARGET to one of: {}", names.join(" "));
        std::process::exit(2);
    };
    *run
});

/// Runs the target with one input.
pub fn run(input: &[u8]) {
    TARGET(input);
}
