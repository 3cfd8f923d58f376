//! The text of a new connector's file.

use std::fmt::Display;
use std::fmt::Write as _;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::super::format::{plain, wrap};
use super::proposal::{Proposal, is_for_host, published};
use super::survey::{ShownCertificate, ShownTls, SurveyedHost};
use crate::policy::tls::NamePattern;

/// The columns of the comments.
const WIDTH: usize = 100;

/// The most names of a certificate that a comment lists.
const NAMES_MAX: usize = 8;

/// A connector that is not in the configuration yet.
#[derive(Debug, Clone)]
pub(super) struct NewConnector {
    /// The name.
    pub(super) name: String,
    /// The domain, in A-labels.
    pub(super) domain: String,
    /// The smart hosts, as in `route`; empty for the MX records.
    pub(super) route: Vec<String>,
    /// The port of the MX hosts.
    pub(super) port: u16,
}

impl NewConnector {
    /// Returns the connector without a demand, by which the hosts are probed.
    pub(super) fn without_demand(&self) -> String {
        format!(
            "{}\n[connector.outbound]\n{}tls = \"opportunistic\"\n",
            self.head(),
            self.way()
        )
    }

    /// Returns the text of the file. `other` is the connector that has the domain's mail now, unless
    /// it is the built-in one.
    pub(super) fn text(
        &self,
        proposal: &Proposal,
        hosts: &[SurveyedHost],
        other: Option<&str>,
        today: Date,
    ) -> String {
        let mut text = String::new();
        let mut remark = |line: &str| comment(&mut text, line);
        remark(&format!(
            "The connector for {}. `gatepost connector add` wrote it on {today} from what the hosts showed on that day, once. \
             Read it, change it, then run `gatepost check` and `gatepost reload`. gatepost.toml(5) explains every key.",
            self.domain
        ));
        remark("");
        for host in hosts {
            host_lines(&mut remark, host);
        }
        remark("");
        for line in published(hosts) {
            remark(&line);
        }
        if let Some(other) = other {
            remark("");
            remark(&format!(
                "Mail for {} went by the connector \"{}\" before. Nothing of that one applies here: copy what you need of it \
                 (source, ehlo, retry, client_certificate, …).",
                self.domain,
                plain(other)
            ));
        }
        text.push('\n');
        text.push_str(&self.head());
        self.demand(&mut text, proposal, today);
        text.push_str(
            "# on_failure = \"defer\"              # if no host meets this: \"defer\" (retry, then bounce), \"hold\" or \"bounce\"\n\n",
        );
        comment(
            &mut text,
            "Mail from the partner is not covered by the probe. With these lines it must come under TLS:",
        );
        text.push_str("# [connector.inbound]\n# tls = \"forced\"\n");
        text
    }

    fn head(&self) -> String {
        format!(
            "[[connector]]\nname = {}\ndomains = [{}]\n",
            quoted(&self.name),
            quoted(&self.domain)
        )
    }

    /// Returns the lines about the next hop.
    fn way(&self) -> String {
        if !self.route.is_empty() {
            return format!("route = [{}]\n", list(&self.route));
        }
        match self.port {
            25 => String::new(),
            port => format!("port = {port}\n"),
        }
    }

    /// Adds the keys that authenticate the partner, and `[connector.outbound]`.
    fn demand(&self, text: &mut String, proposal: &Proposal, today: Date) {
        let (keys, verify) = match proposal {
            Proposal::Dane => (
                String::new(),
                "dane\"                     # the keys that the TLSA records name, by signed MX records alone",
            ),
            Proposal::Names(names) => {
                let names: Vec<_> = names.iter().map(ToString::to_string).collect();
                comment(
                    text,
                    "The names that the certificates carry. Ask the partner whether they stay.",
                );
                (
                    format!("names = [{}]\n", list(&names)),
                    "name\"                     # a certificate of a trusted authority, for one of `names`",
                )
            }
            Proposal::Pins(pins) => {
                comment(
                    text,
                    &format!(
                        "CAUTION: these keys were seen once, on {today}, from here alone. Whoever answered in the partner's place then \
                         would be trusted from now on. Compare them with the partner by telephone before you rely on them. When the partner \
                         changes its key, mail stops until the new pin stands here: ask to be informed before. If the partner has an authority of \
                         its own, ask for its certificate: `trust` and verify = \"name\" outlive a change of keys."
                    ),
                );
                let pins: Vec<_> = pins.iter().map(ToString::to_string).collect();
                (
                    format!("pins = [{}]\n", list(&pins)),
                    "pin\"                      # one of `pins`, whatever the certificate says",
                )
            }
        };
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "{keys}\n[connector.outbound]\n{}tls = \"forced\"                      # without TLS, the peer never hears MAIL FROM\nverify = \"{verify}\n",
            self.way()
        );
    }
}

/// Adds comments about what a host showed.
fn host_lines(remark: &mut impl FnMut(&str), host: &SurveyedHost) {
    for address in &host.addresses {
        match &address.shown {
            ShownTls::Unreachable(why) => remark(&format!("{}: not reached: {why}", address.peer)),
            ShownTls::Clear(why) => remark(&format!(
                "{}: NO TLS ({why}). No mail goes there by this connector.",
                address.peer
            )),
            ShownTls::Unproved(why) => remark(&format!(
                "{}: TLS, but {why}. No mail goes there by this connector.",
                address.peer
            )),
            ShownTls::Certificate(certificate) => {
                remark(&format!(
                    "{}: {}",
                    address.peer,
                    described(host, certificate)
                ));
            }
        }
    }
}

fn described(host: &SurveyedHost, certificate: &ShownCertificate) -> String {
    let expires = certificate
        .not_after
        .to_zoned_datetime(TimeZone::UTC)
        .date();
    let mut names: Vec<_> = certificate
        .names
        .iter()
        .take(NAMES_MAX)
        .map(NamePattern::to_string)
        .collect();
    if certificate.names.len() > NAMES_MAX {
        names.push("…".to_owned());
    }
    let names = if names.is_empty() {
        "no name".to_owned()
    } else {
        names.join(", ")
    };
    let other = if is_for_host(host, certificate) || certificate.names.is_empty() {
        ""
    } else {
        " (not for the host's own name: compare these names with the partner)"
    };
    let trust = match &certificate.chain {
        Ok(()) => "trusted by [tls] trust".to_owned(),
        Err(fault) => format!("NOT TRUSTED: {}", plain(&fault.to_string())),
    };
    format!(
        "TLS; certificate {} for {names}{other}; issued by {}; expires {expires}; {trust}.",
        certificate.subject, certificate.issuer
    )
}

/// Adds a comment in lines of at most [`WIDTH`] columns.
fn comment(text: &mut String, line: &str) {
    let line = plain(line);
    if line.is_empty() {
        text.push_str("#\n");
    } else {
        wrap(text, "# ", "# ", &line, WIDTH);
    }
}

/// Returns a text as TOML.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list(items: &[impl Display]) -> String {
    let items: Vec<_> = items.iter().map(|item| quoted(&item.to_string())).collect();
    items.join(", ")
}
