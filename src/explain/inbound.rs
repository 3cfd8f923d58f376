//! The explanation of mail from a sender: the demand, and the reply to MAIL FROM for each kind of
//! session.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use super::document::{self, SessionForecast};
use super::explainer::Explainer;
use super::subject::Subject;
use crate::config::{Connector, ListenerConfig, ListenerTls};
use crate::policy::connector::inbound_policy;
use crate::policy::tls::{SamplePeer, TlsOutcome, TlsPolicy};
use crate::relay::inbound::{connector_for, judge_sender};
use crate::smtp::address::{Host, ReversePath};

/// Addresses for documentation (RFC 5737, RFC 3849). One of them stands for a client whose address
/// does not matter.
const CLIENTS: [&str; 4] = ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"];

impl Explainer {
    /// Explains mail from a sender. No query is sent.
    #[must_use]
    pub fn inbound(&self, subject: &Subject) -> document::InboundExplanation {
        answer(self, subject, Timestamp::now())
    }
}

/// Explains mail from a sender.
fn answer(
    explainer: &Explainer,
    subject: &Subject,
    now: Timestamp,
) -> document::InboundExplanation {
    let from = subject.reverse_path(&explainer.config.postmaster);
    let any_client = address_outside(&[]);
    let connector = connector_for(&explainer.connectors, &from, any_client);
    let networks = &connector.inbound.networks;
    let client = networks.first().map_or(any_client, first_host);
    let host = from.mailbox().map(|mailbox| mailbox.host().clone());
    let judge = SessionJudge {
        connector,
        from: &from,
        client,
        policy: inbound_policy(connector),
        now,
    };
    let listeners: Vec<_> = explainer
        .config
        .listeners
        .iter()
        .map(|listener| judge.listener(listener))
        .collect();
    let foreign = if networks.is_empty() {
        None
    } else {
        let outside = SessionJudge {
            client: address_outside(networks),
            policy: judge.policy.clone(),
            ..judge
        };
        explainer
            .config
            .listeners
            .first()
            .map(|listener| outside.session(listener, SamplePeer::Right).text)
    };
    document::InboundExplanation {
        direction: "inbound",
        asked: asked(subject, &from),
        sender: match subject {
            Subject::Null => Some(String::new()),
            Subject::Address(mailbox) => Some(mailbox.to_string()),
            Subject::Postmaster | Subject::Host(_) => None,
        },
        domain: host.as_ref().map(ToString::to_string),
        note: note(subject, &from),
        at: now,
        connectors: explainer.matching_connectors(&host.unwrap_or(Host::Literal(any_client))),
        policy: inbound_policy(connector).to_string(),
        networks: networks.iter().map(ToString::to_string).collect(),
        foreign,
        relay: connector.inbound.relay,
        can_come: listeners
            .iter()
            .any(|listener| listener.sessions.iter().any(|session| session.taken)),
        listeners,
    }
}

/// Returns the sender or domain in A-labels.
fn asked(subject: &Subject, from: &ReversePath) -> String {
    match (subject, from.mailbox()) {
        (_, None) => "<>".to_owned(),
        (Subject::Host(host), Some(_)) => host.to_string(),
        (_, Some(mailbox)) => mailbox.to_string(),
    }
}

/// Returns a remark about senders that are not an ordinary domain.
fn note(subject: &Subject, from: &ReversePath) -> Option<String> {
    match (
        subject,
        from.mailbox().map(crate::smtp::address::Mailbox::host),
    ) {
        (Subject::Null, _) => {
            Some("reports have no domain: only \"*\" or the default connector applies".to_owned())
        }
        (Subject::Postmaster, _) => {
            Some("a sender needs a domain: this is that of our own postmaster".to_owned())
        }
        (_, Some(Host::Literal(_))) => Some(
            "an address literal is no domain: only \"*\" or the default connector applies"
                .to_owned(),
        ),
        (_, Some(Host::Domain(_)) | None) => None,
    }
}

/// Judges the sessions of one client under one connector.
#[derive(Clone)]
struct SessionJudge<'a> {
    connector: &'a Arc<Connector>,
    from: &'a ReversePath,
    client: IpAddr,
    policy: TlsPolicy,
    now: Timestamp,
}

impl SessionJudge<'_> {
    /// Returns the reply to MAIL FROM in one kind of session.
    fn session(&self, listener: &ListenerConfig, peer: SamplePeer) -> SessionForecast {
        let outcome = peer.outcome(&self.policy, &self.connector.names, self.now);
        let (kind, shows) = (peer.json_name().to_owned(), peer.to_string());
        match judge_sender(
            self.connector,
            listener,
            self.from,
            Some(self.client),
            outcome,
        ) {
            Ok(standing) => SessionForecast {
                peer: kind,
                shows,
                taken: true,
                may_send_to: Some(if standing.may_relay || listener.auth_required {
                    "any"
                } else {
                    "ours"
                }),
                text: match standing.clearance.outcome() {
                    TlsOutcome::Clear(_) => "in the clear".to_owned(),
                    TlsOutcome::Tls(_) => standing.clearance.authentication().to_string(),
                },
            },
            Err(reply) => SessionForecast {
                peer: kind,
                shows,
                taken: false,
                may_send_to: None,
                text: reply.to_string(),
            },
        }
    }

    /// Returns every kind of session that a listener allows, with its reply.
    fn listener(&self, listener: &ListenerConfig) -> document::ExplainedListener {
        let (tls, in_clear, with_tls) = match listener.tls {
            ListenerTls::Off => ("off", true, false),
            ListenerTls::Opportunistic => ("opportunistic", true, true),
            // A forced listener accepts no MAIL command before TLS.
            ListenerTls::Forced => ("forced", false, true),
            ListenerTls::Implicit => ("implicit", false, true),
        };
        let client_certificate = with_tls && listener.request_client_certificate;
        let can_be = |peer: &SamplePeer| match peer {
            // A client can log in under TLS alone.
            SamplePeer::NotUsed => in_clear && !listener.auth_required,
            SamplePeer::NoCertificate => with_tls,
            _ => client_certificate,
        };
        let peers = SamplePeer::clients(&self.policy).into_iter().filter(can_be);
        document::ExplainedListener {
            name: listener.name.clone(),
            addresses: listener
                .addresses
                .iter()
                .map(|address| address.value.to_string())
                .collect(),
            tls,
            client_certificate,
            login: match (listener.auth_required, listener.auth.is_empty()) {
                (true, _) => "required",
                (false, false) => "possible",
                (false, true) => "none",
            },
            sessions: peers.map(|peer| self.session(listener, peer)).collect(),
        }
    }
}

/// Returns an address of [`CLIENTS`] that is outside of the networks, or the first one if all are
/// inside.
fn address_outside(networks: &[IpNet]) -> IpAddr {
    let addresses: Vec<IpAddr> = CLIENTS
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    let outside = addresses
        .iter()
        .find(|address| !networks.iter().any(|network| network.contains(*address)));
    outside
        .or(addresses.first())
        .copied()
        .unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
}

fn first_host(network: &IpNet) -> IpAddr {
    network.hosts().next().unwrap_or(network.addr())
}
