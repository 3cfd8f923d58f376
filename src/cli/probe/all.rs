//! `gatepost probe --all`: every connector that forces TLS, several at a time.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};

use super::super::show;
use super::apart::Apart;
use super::soon::{self, Soon};
use super::text::{brief, quoted};
use super::{After, Done, json, look};
use crate::address::Host;
use crate::config::{Connector, DomainPattern, Route, TlsDemand};

/// Domains that are probed side by side.
const AT_A_TIME: usize = 8;

/// Something to be probed.
struct Work {
    recipient: Host,
    connector: Arc<Connector>,
}

/// A pattern from which no domain follows.
struct Unnamed {
    connector: Arc<Connector>,
    pattern: DomainPattern,
}

pub(super) async fn run(apart: &Apart, json: bool) -> ExitCode {
    let (work, unnamed) = plan(&apart.snapshot.config.connectors);
    let looking = work.into_iter().map(|Work { recipient, connector }| look(apart, recipient, connector));
    let all: Vec<Done> = stream::iter(looking).buffered(AT_A_TIME).collect().await;
    let soon: Vec<Vec<Soon>> = all.iter().map(|done| soon::of(done, apart)).collect();
    if json {
        let documents: Vec<_> = all.iter().zip(&soon).map(|(done, soon)| json::done(done, soon)).collect();
        show(&json::document(&documents));
    } else {
        show(&table(&all));
        show(&unnamed.iter().map(unnamed_line).collect::<String>());
        show(&soon.iter().map(|soon| soon::lines(soon)).collect::<String>());
        show(&tally(&all));
    }
    if all.iter().any(Done::fails) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What is probed, and of which patterns nothing can be. Smart hosts are the same for all domains of a
/// connector: they are probed once, by its first domain or, where it has none, by their own name.
fn plan(connectors: &[Arc<Connector>]) -> (Vec<Work>, Vec<Unnamed>) {
    let (mut work, mut unnamed) = (Vec::new(), Vec::new());
    for connector in connectors {
        match connector.outbound.tls {
            TlsDemand::Forced { .. } => {}
            TlsDemand::Off | TlsDemand::Opportunistic => continue,
        }
        let exact = connector.domains.iter().filter_map(|pattern| match pattern {
            DomainPattern::Exactly(domain) => Some(Host::Domain(domain.clone())),
            DomainPattern::Any | DomainPattern::Below(_) => None,
        });
        let probe = |recipient| Work { recipient, connector: Arc::clone(connector) };
        match &connector.outbound.route {
            Route::SmartHosts(hosts) => {
                let own = hosts.first().map(|host| host.host.clone());
                work.extend(exact.chain(own).next().map(probe));
            }
            Route::Mx { .. } => {
                work.extend(exact.map(probe));
                let wide = connector.domains.iter().filter(|pattern| !matches!(pattern, DomainPattern::Exactly(_)));
                unnamed
                    .extend(wide.map(|pattern| Unnamed { connector: Arc::clone(connector), pattern: pattern.clone() }));
            }
        }
    }
    (work, unnamed)
}

fn table(all: &[Done]) -> String {
    let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or_default();
    let domains = width(&mut all.iter().map(|done| done.recipient.to_string().chars().count()));
    let connectors = width(&mut all.iter().map(|done| quoted(&done.connector.name).chars().count()));
    let mut out = String::new();
    for done in all {
        let (word, why) = brief(&done.probe.prospect);
        let (domain, connector) = (done.recipient.to_string(), quoted(&done.connector.name));
        // Writing into a String cannot fail.
        let mut row = |word, why| {
            let _ = writeln!(out, "{word:<8}{domain:<domains$}  {connector:<connectors$}  {why}");
        };
        row(word, under_exception(done, why));
        if let Some(After { until, probe }) = &done.after {
            let (word, why) = brief(&probe.prospect);
            row("LATER", format!("once the exception has ended on {until}: {word}: {why}"));
        }
    }
    out
}

/// The reason, with the exception that holds.
fn under_exception(done: &Done, why: String) -> String {
    match &done.after {
        Some(After { until, .. }) => format!("{why} (exception until {until})"),
        None => why,
    }
}

fn unnamed_line(unnamed: &Unnamed) -> String {
    let Unnamed { connector, pattern } = unnamed;
    format!(
        "-       connector \"{}\" speaks for \"{pattern}\" too, and no domain follows from that: probe one by its name\n",
        connector.name
    )
}

fn tally(all: &[Done]) -> String {
    let failing = all.iter().filter(|done| done.fails()).count();
    match all.len() {
        0 => "no connector forces TLS for a domain that could be probed\n".to_owned(),
        some => {
            let count = |which: fn(&Done) -> bool| all.iter().filter(|done| which(done)).count();
            let mut text = format!("{some} probed, {failing} would fail today");
            for (number, words) in [
                (count(Done::is_clear), "in clear today"),
                (count(Done::fails_later), "would fail once exceptions have ended"),
            ] {
                if number > 0 {
                    let _ = write!(text, ", {number} {words}");
                }
            }
            text + "\n"
        }
    }
}
