//! `gatepost probe --all`: probes the domains of every connector that forces TLS, several at a
//! time.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};

use super::super::format::{INDENT, Table, width, wrap};
use super::super::output::show;
use super::context::ProbeContext;
use super::domain_probe::{AfterException, DomainProbe, probe_domain};
use super::expiry::{self, UpcomingExpiry};
use super::json;
use super::text::{brief, quoted};
use crate::config::{Connector, DomainPattern, Route, TlsDemand};
use crate::smtp::address::Host;

/// The number of domains that are probed concurrently.
const CONCURRENCY: usize = 8;

/// A domain to probe, with its connector.
struct ProbeTarget {
    recipient: Host,
    connector: Arc<Connector>,
}

/// A pattern with a wildcard, which cannot be probed because no domain follows from it.
struct WildcardPattern {
    connector: Arc<Connector>,
    pattern: DomainPattern,
}

/// Probes the domains and prints the results.
pub(super) async fn run(context: &ProbeContext, json: bool) -> ExitCode {
    let (targets, wildcards) = targets(&context.snapshot.config.connectors);
    let probes = targets
        .into_iter()
        .map(|target| probe_domain(context, target.recipient, target.connector));
    let results: Vec<DomainProbe> = stream::iter(probes).buffered(CONCURRENCY).collect().await;
    let expiries: Vec<Vec<UpcomingExpiry>> = results
        .iter()
        .map(|result| expiry::upcoming(result, context))
        .collect();
    if json {
        let points = context.snapshot.points.summaries();
        let pairs = results.iter().zip(&expiries);
        let documents: Vec<_> = pairs
            .map(|(result, expiries)| json::document(result, expiries, &points))
            .collect();
        show(&crate::cli::json::indented(&documents));
    } else {
        let width = width();
        show(&table(&results).render(width));
        let mut text = String::new();
        for wildcard in &wildcards {
            wrap(&mut text, "", INDENT, &wildcard_line(wildcard), width);
        }
        for expiries in &expiries {
            text.push_str(&expiry::lines(expiries, width));
        }
        wrap(&mut text, "", INDENT, &totals(&results), width);
        show(&text);
    }
    if results.iter().any(DomainProbe::fails) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Returns the domains to probe, and the patterns with a wildcard. The smart hosts of a connector
/// are the same for all of its domains: they are probed once, with its first domain or, if it has
/// only wildcards, with their own name.
fn targets(connectors: &[Arc<Connector>]) -> (Vec<ProbeTarget>, Vec<WildcardPattern>) {
    let (mut targets, mut wildcards) = (Vec::new(), Vec::new());
    for connector in connectors {
        match connector.outbound.tls {
            TlsDemand::Forced { .. } => {}
            TlsDemand::Off | TlsDemand::Opportunistic => continue,
        }
        let exact = connector
            .domains
            .iter()
            .filter_map(|pattern| match pattern {
                DomainPattern::Exactly(domain) => Some(Host::Domain(domain.clone())),
                DomainPattern::Any | DomainPattern::Below(_) => None,
            });
        let target = |recipient| ProbeTarget {
            recipient,
            connector: Arc::clone(connector),
        };
        match &connector.outbound.route {
            Route::SmartHosts(hosts) => {
                let own_name = hosts.first().map(|host| host.host.clone());
                targets.extend(exact.chain(own_name).next().map(target));
            }
            Route::Mx { .. } => {
                targets.extend(exact.map(target));
                let patterns = connector
                    .domains
                    .iter()
                    .filter(|pattern| !matches!(pattern, DomainPattern::Exactly(_)));
                wildcards.extend(patterns.cloned().map(|pattern| WildcardPattern {
                    connector: Arc::clone(connector),
                    pattern,
                }));
            }
        }
    }
    (targets, wildcards)
}

/// Returns a table with a row for each domain, and a second one if an exception is in force.
fn table(results: &[DomainProbe]) -> Table {
    let mut table = Table::new(&["outcome", "domain", "connector"]);
    for result in results {
        let mut row = |outcome: &str, reason: String| {
            table
                .row([
                    outcome.to_owned(),
                    result.recipient.to_string(),
                    quoted(&result.connector.name),
                ])
                .note(reason);
        };
        let (outcome, reason) = brief(&result.probe.prospect);
        let Some(AfterException { until, probe }) = &result.after else {
            row(outcome, reason);
            continue;
        };
        row(outcome, format!("{reason} (exception until {until})"));
        let (outcome, reason) = brief(&probe.prospect);
        row(
            "LATER",
            format!("after the exception has ended on {until}: {outcome}: {reason}"),
        );
    }
    table
}

fn wildcard_line(wildcard: &WildcardPattern) -> String {
    let WildcardPattern { connector, pattern } = wildcard;
    format!(
        "the pattern \"{pattern}\" of connector \"{}\" names no domain to probe: probe one by its name",
        connector.name
    )
}

/// Returns the last line of the output.
fn totals(results: &[DomainProbe]) -> String {
    if results.is_empty() {
        return "no connector forces TLS for a domain that could be probed".to_owned();
    }
    let count = |is_counted: fn(&DomainProbe) -> bool| {
        results.iter().filter(|result| is_counted(result)).count()
    };
    let mut text = format!(
        "{} probed, {} would fail today",
        results.len(),
        count(DomainProbe::fails)
    );
    for (number, property) in [
        (count(DomainProbe::is_clear), "in the clear today"),
        (
            count(DomainProbe::fails_later),
            "would fail after exceptions have ended",
        ),
    ] {
        if number > 0 {
            let _ = write!(text, ", {number} {property}");
        }
    }
    text
}
