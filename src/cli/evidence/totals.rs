//! The last lines of the output: the selection, its totals and the state of the chain.

use super::filter::RecordFilter;
use super::query::{QueryResult, is_whole};
use crate::cli::format::{INDENT, count, plain, wrap};
use crate::storage::evidence::{AssuranceTotals, ChainStart, OutcomeCounts, Totals, Verification};

/// The most verified names that are listed.
const NAMES_MAX: usize = 3;

/// Returns the last lines of the output for records that were found, for a terminal with `width`
/// columns.
pub(super) fn closing_lines(
    filter: &RecordFilter<'_>,
    result: &QueryResult,
    width: usize,
) -> String {
    let mut text = String::new();
    if let Some(selection) = filter.text() {
        let line = format!("selected: {}", plain(&selection));
        wrap(&mut text, "", INDENT, &line, width);
    }
    add_totals(&mut text, &result.totals, &chain_text(&result.chain), width);
    text
}

/// Appends the totals, and the state of the chain to the last line of them.
fn add_totals(text: &mut String, totals: &Totals, chain: &str, width: usize) {
    let mut lines = totals_lines(totals);
    match lines.last_mut() {
        Some(last) => *last = format!("{last}; {chain}"),
        None => lines.push(chain.to_owned()),
    }
    for line in &lines {
        wrap(text, "", INDENT, line, width);
    }
}

/// Returns the totals, a line for each kind of record.
fn totals_lines(totals: &Totals) -> Vec<String> {
    let mut lines = Vec::new();
    if totals.messages.count > 0 {
        let what = format!("{} accepted", count(totals.messages.count, "message"));
        lines.push(assurance_text(&what, &totals.messages));
    }
    if totals.attempts.total() > 0 {
        lines.push(attempts_text(&totals.attempts));
    }
    if totals.recipients.count > 0 {
        lines.push(assurance_text(
            &count(totals.recipients.count, "recipient"),
            &totals.recipients,
        ));
    }
    lines
}

/// Returns a text such as `10 attempts: 9 delivered, 1 deferred`.
fn attempts_text(counts: &OutcomeCounts) -> String {
    let outcomes = counts.all().into_iter().filter(|(_, count)| *count > 0);
    let outcomes = outcomes
        .map(|(outcome, count)| format!("{count} {}", outcome.as_str()))
        .collect::<Vec<_>>();
    format!(
        "{}: {}",
        count(counts.total(), "attempt"),
        outcomes.join(", ")
    )
}

/// Returns a text such as `312 recipients, 312 verified as smtp.hospital.example, 0 in the clear`.
fn assurance_text(what: &str, totals: &AssuranceTotals) -> String {
    let [clear, tls, trusted, verified, pinned, dane] = totals.levels.all();
    let as_names = if verified > 0 {
        names_text(totals, verified)
    } else {
        String::new()
    };
    let other = totals
        .count
        .saturating_sub(clear + tls + trusted + verified + pinned + dane);
    let parts = [
        (verified, as_names.as_str()),
        (dane, "verified by DANE"),
        (pinned, "verified by a pinned key"),
        (trusted, "encrypted with a chain"),
        (tls, "encrypted"),
        (other, "without a recorded session"),
    ];
    let parts = parts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, kind)| format!("{count} {kind}"));
    let all: Vec<_> = [what.to_owned()]
        .into_iter()
        .chain(parts)
        .chain([format!("{clear} in the clear")])
        .collect();
    all.join(", ")
}

/// Returns a text such as `verified as mail.example.org`; of several names, the number and the
/// first ones.
fn names_text(totals: &AssuranceTotals, verified: u64) -> String {
    let names: Vec<_> = totals.verified_as.keys().map(|name| plain(name)).collect();
    // The number of listed names is limited. If their counts do not add up, there are more names.
    let are_complete = totals.verified_as.values().sum::<u64>() == verified;
    match &names[..] {
        [] => "verified".to_owned(),
        [name] if are_complete => format!("verified as {name}"),
        names => {
            let number = if are_complete {
                names.len().to_string()
            } else {
                format!("over {}", names.len())
            };
            let more = if names.len() > NAMES_MAX || !are_complete {
                ", …"
            } else {
                ""
            };
            let listed = names
                .iter()
                .take(NAMES_MAX)
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ");
            format!("verified as {number} names ({listed}{more})")
        }
    }
}

/// Returns a text such as `chain whole, head sha256:…`. It says where the verification began, if
/// that was not the first record.
pub(super) fn chain_text(chain: &Verification) -> String {
    let Some(last) = &chain.last else {
        return "no chain".to_owned();
    };
    let scope = match (chain.beginning, &chain.first) {
        (ChainStart::NotRead, Some(first)) => {
            format!(
                " from record {} of {} on",
                first.seq,
                first.time.strftime("%Y-%m-%d")
            )
        }
        _ => String::new(),
    };
    if is_whole(chain) {
        format!("chain whole{scope}, head sha256:{}", last.hash)
    } else {
        let defects = count(chain.findings.len() as u64 + chain.more, "defect");
        format!(
            "chain NOT WHOLE{scope}, {defects}, last record sha256:{}",
            last.hash
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::evidence::AssuranceCounts;

    /// Recipients of whom so many were verified, as these names.
    fn verified(verified: u64, names: &[(&str, u64)]) -> AssuranceTotals {
        let levels = AssuranceCounts {
            verified,
            ..AssuranceCounts::default()
        };
        let verified_as = names
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        AssuranceTotals {
            count: verified,
            levels,
            verified_as,
        }
    }

    /// One name is named; of several, the number and the first three are.
    #[test]
    fn several_names_are_counted() {
        let [a, b, c, d] = [("a", 1), ("b", 2), ("c", 3), ("d", 4)];
        for (totals, expected) in [
            (verified(0, &[]), "who, 0 in the clear"),
            (verified(1, &[a]), "who, 1 verified as a, 0 in the clear"),
            (
                verified(3, &[a, b]),
                "who, 3 verified as 2 names (a, b), 0 in the clear",
            ),
            (
                verified(6, &[a, b, c]),
                "who, 6 verified as 3 names (a, b, c), 0 in the clear",
            ),
            (
                verified(10, &[a, b, c, d]),
                "who, 10 verified as 4 names (a, b, c, …), 0 in the clear",
            ),
            // The list of names reached its maximum.
            (
                verified(9, &[b, c]),
                "who, 9 verified as over 2 names (b, c, …), 0 in the clear",
            ),
            // Records of earlier versions may lack the name.
            (verified(2, &[]), "who, 2 verified, 0 in the clear"),
        ] {
            assert_eq!(assurance_text("who", &totals), expected);
        }
    }

    /// Each line is as wide as the terminal at most, and only a hash, which must stay in one piece,
    /// may be wider.
    #[test]
    fn the_totals_fit_the_terminal() {
        let mut totals = Totals {
            recipients: verified(312, &[("smtp.hospital.example", 312)]),
            ..Totals::default()
        };
        totals.attempts.delivered = 312;
        let hash = format!("sha256:{}", "c".repeat(64));
        let lines = |width| {
            let mut text = String::new();
            add_totals(
                &mut text,
                &totals,
                &format!("chain whole, head {hash}"),
                width,
            );
            text
        };
        assert_eq!(
            lines(80),
            format!(
                "312 attempts: 312 delivered\n312 recipients, 312 verified as smtp.hospital.example, 0 in the clear; chain\n    \
                 whole, head\n    {hash}\n"
            )
        );
        let narrow = lines(40);
        let is_narrow = |line: &str| line.chars().count() <= 40 || line.trim() == hash;
        assert!(narrow.lines().all(is_narrow), "{narrow}");
        let wide = "312 recipients, 312 verified as smtp.hospital.example, 0 in the clear; chain whole, head ";
        assert!(lines(200).ends_with(&format!("\n{wide}{hash}\n")));
    }

    /// Attempts are counted by outcome, and recipients without a session are not left out.
    #[test]
    fn each_record_is_in_the_totals() {
        let mut totals = Totals::default();
        totals.attempts.delivered = 1;
        totals.recipients.count = 1;
        let text =
            "1 attempt: 1 delivered\n1 recipient, 1 without a recorded session, 0 in the clear";
        assert_eq!(totals_lines(&totals).join("\n"), text);
        totals.attempts.deferred = 9;
        totals.attempts.removed = 2;
        totals.recipients.levels.clear = 1;
        let text = "12 attempts: 1 delivered, 9 deferred, 2 removed\n1 recipient, 1 in the clear";
        assert_eq!(totals_lines(&totals).join("\n"), text);
    }
}
