//! The demand that a new connector makes, derived from what the partner's hosts showed.

use super::super::format::count;
use super::survey::{PolicyMode, ShownCertificate, ShownTls, SurveyedHost};
use crate::policy::tls::{DaneScope, NamePattern, Pin};

/// The most names that are copied from one certificate, which may have hundreds.
const NAMES_MAX: usize = 8;

/// The authentication that a new connector demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proposal {
    /// `verify = "dane"`: each host has usable TLSA records, found by signed MX records.
    Dane,
    /// `verify = "name"`: each certificate is trusted, and carries one of these names.
    Names(Vec<NamePattern>),
    /// `verify = "pin"`: a certificate is not trusted, or has no name.
    Pins(Vec<Pin>),
}

/// The reason why no connector can be proposed, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoProposal {
    /// No session came to the point where TLS is offered.
    #[error(
        "no host of {domain} answered: {reasons}.\nCheck the network from here (a firewall may block outgoing port 25), or the route, and run the command again."
    )]
    Unreachable {
        /// The recipient domain.
        domain: String,
        /// The reason of each address.
        reasons: String,
    },
    /// No host has TLS.
    #[error(
        "no host of {domain} has TLS: {reasons}.\nA connector that forces TLS would stop all mail for {domain}. Ask the partner to switch STARTTLS on, or to repair its TLS, then run the command again; until then mail goes in the clear without a connector."
    )]
    NoTls {
        /// The recipient domain.
        domain: String,
        /// The reason of each address.
        reasons: String,
    },
    /// The hosts have TLS, but no certificate that proves anything.
    #[error(
        "no certificate of {domain} proves anything: {reasons}.\nAsk the partner for another certificate. A connector with tls = \"forced\" alone, written by hand, demands encryption without proof."
    )]
    Unproved {
        /// The recipient domain.
        domain: String,
        /// The reason of each address.
        reasons: String,
    },
}

impl Proposal {
    /// Derives the demand.
    ///
    /// # Errors
    /// [`NoProposal`].
    pub(super) fn new(domain: &str, hosts: &[SurveyedHost]) -> Result<Self, NoProposal> {
        let shown: Vec<_> = certificates(hosts).collect();
        if shown.is_empty() {
            return Err(nothing(domain, hosts));
        }
        if hosts
            .iter()
            .all(|host| host.dane == Some(DaneScope::Domain))
        {
            return Ok(Self::Dane);
        }
        let mut names = Vec::new();
        for (host, certificate) in &shown {
            let own = own_names(host, certificate);
            if certificate.chain.is_err() || own.is_empty() {
                return Ok(Self::Pins(pins(&shown)));
            }
            for name in own {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        Ok(Self::Names(names))
    }
}

/// Returns the certificates with their hosts.
pub(super) fn certificates(
    hosts: &[SurveyedHost],
) -> impl Iterator<Item = (&SurveyedHost, &ShownCertificate)> {
    hosts.iter().flat_map(|host| {
        host.addresses
            .iter()
            .filter_map(move |address| match &address.shown {
                ShownTls::Certificate(certificate) => Some((host, &**certificate)),
                ShownTls::Unreachable(_) | ShownTls::Clear(_) | ShownTls::Unproved(_) => None,
            })
    })
}

/// Returns whether a certificate is for the name of its host.
pub(super) fn is_for_host(host: &SurveyedHost, certificate: &ShownCertificate) -> bool {
    host.name.as_ref().is_some_and(|name| {
        let wanted = NamePattern::Exact(name.clone());
        certificate.names.iter().any(|name| wanted.accepts(name))
    })
}

/// Returns the names to demand of a host: its own name if its certificate carries that, else those
/// of the certificate.
fn own_names(host: &SurveyedHost, certificate: &ShownCertificate) -> Vec<NamePattern> {
    match &host.name {
        Some(name) if is_for_host(host, certificate) => vec![NamePattern::Exact(name.clone())],
        Some(_) | None => certificate.names.iter().take(NAMES_MAX).cloned().collect(),
    }
}

fn pins(shown: &[(&SurveyedHost, &ShownCertificate)]) -> Vec<Pin> {
    let mut pins = Vec::new();
    for (_, certificate) in shown {
        if !pins.contains(&certificate.key) {
            pins.push(certificate.key);
        }
    }
    pins
}

/// Returns the reason why hosts without a certificate lead to no connector.
fn nothing(domain: &str, hosts: &[SurveyedHost]) -> NoProposal {
    let shown = || hosts.iter().flat_map(|host| &host.addresses);
    let reasons: Vec<_> = shown()
        .filter_map(|address| match &address.shown {
            ShownTls::Unreachable(why) | ShownTls::Clear(why) | ShownTls::Unproved(why) => {
                Some(format!("{}: {why}", address.peer))
            }
            ShownTls::Certificate(_) => None,
        })
        .collect();
    let (domain, reasons) = (domain.to_owned(), reasons.join("; "));
    if shown().any(|address| matches!(address.shown, ShownTls::Unproved(_))) {
        NoProposal::Unproved { domain, reasons }
    } else if shown().any(|address| matches!(address.shown, ShownTls::Clear(_))) {
        NoProposal::NoTls { domain, reasons }
    } else {
        NoProposal::Unreachable { domain, reasons }
    }
}

/// Returns what the connector adds to the policies that the domain publishes, in sentences.
pub(super) fn published(hosts: &[SurveyedHost]) -> Vec<String> {
    let all = hosts.len();
    let with_dane = hosts.iter().filter(|host| host.dane.is_some()).count();
    let with = |mode| {
        hosts
            .iter()
            .filter(move |host| host.mta_sts == mode)
            .count()
    };
    let (enforced, testing) = (with(PolicyMode::Enforce), with(PolicyMode::Testing));
    let mut sentences = Vec::new();
    let of = |number: usize| {
        format!(
            "{number} of {}",
            count(u64::try_from(all).unwrap_or(u64::MAX), "host")
        )
    };
    if with_dane > 0 {
        sentences.push(format!(
            "DANE: {} {} usable TLSA records. They suffice: mail goes only to the keys that they name, without this connector \
             too. The connector adds that mail waits if the records go away, and a place for your own demands.",
            of(with_dane),
            if with_dane == 1 { "has" } else { "have" }
        ));
    }
    if enforced > 0 {
        sentences.push(format!(
            "MTA-STS: the domain's policy is in force for {}. It suffices: mail goes only under TLS, to a trusted \
             certificate of the host's name, without this connector too. The connector adds that this stays if the policy goes away, \
             and that the names are those that stand here, whatever DNS says.",
            of(enforced)
        ));
    }
    if testing > 0 {
        sentences.push(
            "MTA-STS: the domain's policy is in testing mode, so it demands nothing. The connector adds the demand.".to_owned(),
        );
    }
    if sentences.is_empty() {
        sentences.push(
            "Neither DANE nor MTA-STS was found for these hosts: without this connector, TLS is opportunistic, and somebody in \
             between can remove it."
                .to_owned(),
        );
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::super::survey::SurveyedAddress;
    use super::*;
    use crate::policy::tls::ChainFault;
    use crate::smtp::address::Domain;

    fn certificate(names: &[&str], chain: Result<(), ChainFault>, key: u8) -> ShownTls {
        ShownTls::Certificate(Box::new(ShownCertificate {
            subject: "CN=a host".to_owned(),
            issuer: "CN=an authority".to_owned(),
            names: names
                .iter()
                .map(|name| NamePattern::parse(name).expect("a name"))
                .collect(),
            not_after: jiff::Timestamp::UNIX_EPOCH,
            key: Pin::new([key; 32]),
            chain,
        }))
    }

    fn host(name: &str, shown: ShownTls) -> SurveyedHost {
        SurveyedHost {
            name: Some(Domain::parse(name).expect("a name")),
            dane: None,
            mta_sts: PolicyMode::Without,
            addresses: vec![SurveyedAddress {
                peer: format!("{name} [192.0.2.1]:25"),
                shown,
            }],
        }
    }

    fn names(names: &[&str]) -> Proposal {
        let parse = |name: &&str| NamePattern::parse(name).expect("a name");
        Proposal::Names(names.iter().map(parse).collect())
    }

    /// One certificate that is not trusted is enough for pins, and then every key is one; unreachable
    /// hosts and hosts in the clear add nothing.
    #[test]
    fn the_demand_is_one_that_every_certificate_meets() {
        let good = || host("a.example", certificate(&["*.example"], Ok(()), 1));
        let unnamed = || host("b.example", certificate(&[], Ok(()), 2));
        let other = || host("b.example", certificate(&["x.example"], Ok(()), 2));
        let own = || {
            let chain = Err(ChainFault::SelfSigned);
            host("b.example", certificate(&["b.example"], chain, 3))
        };
        let clear = || host("c.example", ShownTls::Clear("no".to_owned()));
        let away = || host("c.example", ShownTls::Unreachable("no".to_owned()));
        let pins =
            |keys: &[u8]| Proposal::Pins(keys.iter().map(|key| Pin::new([*key; 32])).collect());
        for (hosts, expected) in [
            (vec![good(), clear(), away()], names(&["a.example"])),
            (vec![good(), good()], names(&["a.example"])),
            (vec![good(), other()], names(&["a.example", "x.example"])),
            (vec![good(), unnamed()], pins(&[1, 2])),
            (vec![good(), own(), own()], pins(&[1, 3])),
        ] {
            assert_eq!(
                Proposal::new("p.example", &hosts),
                Ok(expected),
                "{hosts:?}"
            );
        }
    }

    /// The names of unsigned MX records are no proof that the domain has DANE.
    #[test]
    fn dane_is_demanded_where_every_host_proves_the_domain() {
        let with = |scopes: &[Option<DaneScope>]| -> Vec<_> {
            let dane = |scope: &Option<DaneScope>| SurveyedHost {
                dane: *scope,
                ..host("a.example", certificate(&["a.example"], Ok(()), 1))
            };
            scopes.iter().map(dane).collect()
        };
        let (domain, only_host) = (Some(DaneScope::Domain), Some(DaneScope::Host));
        for (scopes, expected) in [
            (vec![domain, domain], Proposal::Dane),
            (vec![domain, None], names(&["a.example"])),
            (vec![only_host], names(&["a.example"])),
        ] {
            let hosts = with(&scopes);
            assert_eq!(
                Proposal::new("p.example", &hosts),
                Ok(expected),
                "{scopes:?}"
            );
        }
    }

    #[test]
    fn without_a_certificate_the_reason_says_what_to_do() {
        let clear = || host("a.example", ShownTls::Clear("no STARTTLS".to_owned()));
        let away = || host("b.example", ShownTls::Unreachable("refused".to_owned()));
        let odd = || host("c.example", ShownTls::Unproved("no certificate".to_owned()));
        for (hosts, words) in [
            (
                vec![away(), clear()],
                "has TLS: b.example [192.0.2.1]:25: refused; a.example [192.0.2.1]:25: no STARTTLS.\n",
            ),
            (vec![away()], "no host of p.example answered"),
            (
                vec![clear(), odd()],
                "no certificate of p.example proves anything",
            ),
        ] {
            let error = Proposal::new("p.example", &hosts).expect_err("no connector");
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn the_comment_says_that_a_published_policy_suffices_and_what_the_connector_adds() {
        let of = |mta_sts, dane| {
            let host = host("a.example", certificate(&["a.example"], Ok(()), 1));
            published(&[SurveyedHost {
                dane,
                mta_sts,
                ..host
            }])
            .join(" ")
        };
        for (text, words) in [
            (
                of(PolicyMode::Enforce, None),
                &[
                    "MTA-STS: the domain's policy is in force for 1 of 1 host. It suffices",
                    "The connector adds that this stays",
                ][..],
            ),
            (
                of(PolicyMode::Testing, None),
                &["testing mode, so it demands nothing. The connector adds the demand."],
            ),
            (
                of(PolicyMode::Without, Some(DaneScope::Host)),
                &["DANE: 1 of 1 host has usable TLSA records. They suffice"],
            ),
            (
                of(PolicyMode::Without, None),
                &["Neither DANE nor MTA-STS was found"],
            ),
        ] {
            for words in words {
                assert!(text.contains(words), "{words:?} is not in {text}");
            }
        }
    }
}
