//! `gatepost check --connector`: one connector as text.

use jiff::Timestamp;

use super::effective::{EffectiveConnector, EffectiveDomain, EffectiveSetting, SettingOrigin};
use super::layout::Block;
use super::words;
use crate::cli::format::wrap_parts;
use crate::config::{Config, DomainPattern, SettingValue};

/// The width of the column with the place of a setting.
const ORIGIN: usize = 9;

/// Returns a connector with all effective values, and the place that each comes from, in lines of
/// at most `width` columns.
pub(super) fn text(
    config: &Config,
    shown: &EffectiveConnector,
    now: Timestamp,
    width: usize,
) -> String {
    let connector = &shown.connector;
    let title = match &shown.location {
        Some(location) => format!(
            "Connector {}, {}:{}",
            connector.name,
            location.file.display(),
            location.line
        ),
        None => format!("Connector {} (built in)", connector.name),
    };
    let mut text = title + "\n";
    settings(&mut text, &shown.both, width);
    text.push('\n');
    wrap_parts(
        &mut text,
        "Mail to them: ",
        &words::outbound_demand(connector, now),
        ", ",
        width,
    );
    if let Some(exception) = &connector.outbound.exception {
        wrap_parts(
            &mut text,
            "  ",
            &[words::exception_text(exception, now)],
            "",
            width,
        );
    }
    if let Some(demand) = words::demand_after_exception(connector, now) {
        wrap_parts(&mut text, "  afterwards: ", &demand, ", ", width);
    }
    settings(&mut text, &shown.outbound, width);
    let mut parts = vec![words::route(&connector.outbound.route)];
    parts.extend(words::other_layers(connector));
    parts.extend(words::on_failure(connector));
    wrap_parts(&mut text, "  means    ", &parts, "; ", width);
    text.push('\n');
    wrap_parts(
        &mut text,
        "Mail from them: ",
        &words::inbound_demand(connector),
        ", ",
        width,
    );
    settings(&mut text, &shown.inbound, width);
    let from = if connector.inbound.networks.is_empty() {
        "from any address"
    } else {
        "only from these networks"
    };
    let to = if connector.inbound.relay {
        "may relay to any domain"
    } else {
        "may send to [relay] domains"
    };
    wrap_parts(&mut text, "  means    ", &[from, to], "; ", width);
    text.push_str("\nDomains\n");
    for domain in &shown.domains {
        text.push_str(&domain_text(config, domain, width));
    }
    text
}

/// Adds the settings, one on each line, after the place that it comes from. Those that are not set
/// share a line.
fn settings(text: &mut String, settings: &[EffectiveSetting], width: usize) {
    let mut unset = Vec::new();
    for EffectiveSetting {
        key, value, origin, ..
    } in settings
    {
        let (origin, remark) = match origin {
            _ if value.is_unset() => {
                unset.push(*key);
                continue;
            }
            SettingOrigin::Written(location) => (format!("line {}", location.line), ""),
            SettingOrigin::Tls(location) => (format!("line {}", location.line), " ([tls])"),
            SettingOrigin::Default => ("default".to_owned(), ""),
        };
        let head = format!("  {origin:<ORIGIN$}{key} = ");
        let mut parts = parts(value);
        if let Some(last) = parts.last_mut() {
            last.push_str(remark);
        }
        wrap_parts(text, &head, &parts, ", ", width);
    }
    if !unset.is_empty() {
        let head = format!("  {:<ORIGIN$}", "not set");
        wrap_parts(text, &head, &unset, ", ", width);
    }
}

/// Returns the parts of a value between which a line may be broken: the items of a list or table.
fn parts(value: &SettingValue) -> Vec<String> {
    let (mut parts, open, close): (Vec<_>, _, _) = match value {
        SettingValue::List(items) if !items.is_empty() => {
            (items.iter().map(ToString::to_string).collect(), "[", "]")
        }
        SettingValue::Table(pairs) if !pairs.is_empty() => (
            pairs
                .iter()
                .map(|(key, value)| format!("{key} = {value}"))
                .collect(),
            "{ ",
            " }",
        ),
        value => (vec![value.to_string()], "", ""),
    };
    if let Some(first) = parts.first_mut() {
        first.insert_str(0, open);
    }
    if let Some(last) = parts.last_mut() {
        last.push_str(close);
    }
    parts
}

fn domain_text(config: &Config, domain: &EffectiveDomain, width: usize) -> String {
    let EffectiveDomain {
        pattern,
        certificate,
        any_client,
        others,
        more_others,
    } = domain;
    let mut block = Block::new(&format!("  {pattern}"), (4, 10), width);
    if let Some(names) = certificate {
        block.line("to them", &format!("certificate for {names}"));
    }
    let senders = match (any_client, config.relay.networks.is_empty()) {
        (true, _) => "any client may send to them ([relay] domains)",
        (false, false) => "clients in [relay] networks may send to them",
        (false, true) => "no client may send to them, unless its connector has relay = true",
    };
    block.line("senders", senders);
    let mut parts: Vec<_> = others
        .iter()
        .map(|(pattern, name)| format!("{pattern} (connector {name})"))
        .collect();
    if *more_others > 0 {
        parts.push(format!("{more_others} more"));
    }
    if !parts.is_empty() {
        block.parts("not", &parts);
    }
    match pattern {
        DomainPattern::Exactly(domain) => block.line("see", &format!("gatepost explain {domain}")),
        DomainPattern::Below(_) | DomainPattern::Any => {}
    }
    block.end()
}
