//! Mail from a domain: what a session must show, and what each kind of session is answered at MAIL.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use super::words::{self, Answer};
use super::{Explainer, Subject};
use crate::address::{Host, ReversePath};
use crate::config::{Connector, ListenerConfig, ListenerTls};
use crate::connector::inbound_policy;
use crate::inbound::{connector_for, judge_sender};
use crate::tls::{SamplePeer, TlsOutcome, TlsPolicy};

/// Addresses of nobody (RFC 5737, RFC 3849), of which one is a client's where nothing says from where it comes.
const CLIENTS: [&str; 4] = ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"];

pub(super) fn answer(explainer: &Explainer, subject: &Subject, now: Timestamp) -> words::Inbound {
    let from = subject.reverse_path(&explainer.config.postmaster);
    let nobody = elsewhere(&[]);
    let connector = connector_for(&explainer.connectors, &from, nobody);
    let networks = &connector.inbound.networks;
    let client = networks.first().map_or(nobody, a_host_of);
    let host = from.mailbox().map(|mailbox| mailbox.host().clone());
    let ground = Ground { connector, from: &from, client, policy: inbound_policy(connector), now };
    let listeners: Vec<_> = explainer.config.listeners.iter().map(|listener| ground.listener(listener)).collect();
    let foreign = if networks.is_empty() {
        None
    } else {
        let stranger = Ground { client: elsewhere(networks), policy: ground.policy.clone(), ..ground };
        explainer.config.listeners.first().map(|listener| stranger.session(listener, SamplePeer::Right).text)
    };
    words::Inbound {
        direction: "inbound",
        asked: asked(subject, &from),
        domain: host.as_ref().map(ToString::to_string),
        note: note(subject, &from),
        at: now,
        speakers: explainer.speakers(&host.unwrap_or(Host::Literal(nobody))),
        policy: inbound_policy(connector).to_string(),
        networks: networks.iter().map(ToString::to_string).collect(),
        foreign,
        relay: connector.inbound.relay,
        can_come: listeners.iter().any(|listener| listener.sessions.iter().any(|session| session.taken)),
        listeners,
    }
}

fn asked(subject: &Subject, from: &ReversePath) -> String {
    match (subject, from.mailbox()) {
        (_, None) => "<>".to_owned(),
        (Subject::Host(host), Some(_)) => host.to_string(),
        (_, Some(mailbox)) => mailbox.to_string(),
    }
}

fn note(subject: &Subject, from: &ReversePath) -> Option<String> {
    match (subject, from.mailbox().map(crate::address::Mailbox::host)) {
        (Subject::Null, _) => Some("reports have no domain: only \"*\" or the default speaks for them".to_owned()),
        (Subject::Postmaster, _) => Some("a sender has a domain: this is our own postmaster's".to_owned()),
        (_, Some(Host::Literal(_))) => {
            Some("an address literal is no domain: only \"*\" or the default speaks for it".to_owned())
        }
        (_, Some(Host::Domain(_)) | None) => None,
    }
}

/// What sessions are judged by.
#[derive(Clone)]
struct Ground<'a> {
    connector: &'a Arc<Connector>,
    from: &'a ReversePath,
    client: IpAddr,
    policy: TlsPolicy,
    now: Timestamp,
}

impl Ground<'_> {
    fn session(&self, listener: &ListenerConfig, peer: SamplePeer) -> Answer {
        let outcome = peer.outcome(&self.policy, &self.connector.names, self.now);
        let (word, shows) = (peer.json_name().to_owned(), peer.to_string());
        match judge_sender(self.connector, listener, self.from, Some(self.client), outcome) {
            Ok(standing) => Answer {
                peer: word,
                shows,
                taken: true,
                may_send_to: Some(if standing.may_relay { "any" } else { "ours" }),
                text: match standing.clearance.outcome() {
                    TlsOutcome::Clear(_) => "in clear".to_owned(),
                    TlsOutcome::Tls(_) => standing.clearance.authentication().to_string(),
                },
            },
            Err(reply) => Answer { peer: word, shows, taken: false, may_send_to: None, text: reply.to_string() },
        }
    }

    fn listener(&self, listener: &ListenerConfig) -> words::Listener {
        let (tls, in_clear, with_tls) = match listener.tls {
            ListenerTls::Off => ("off", true, false),
            ListenerTls::Opportunistic => ("opportunistic", true, true),
            // Before TLS nothing of mail is heard there.
            ListenerTls::Forced => ("forced", false, true),
            ListenerTls::Implicit => ("implicit", false, true),
        };
        let client_certificate = with_tls && listener.request_client_certificate;
        let can_be = |peer: &SamplePeer| match peer {
            SamplePeer::NotUsed => in_clear,
            SamplePeer::NoCertificate => with_tls,
            _ => client_certificate,
        };
        let peers = SamplePeer::clients(&self.policy).into_iter().filter(can_be);
        words::Listener {
            name: listener.name.clone(),
            addresses: listener.addresses.iter().map(|address| address.value.to_string()).collect(),
            tls,
            client_certificate,
            sessions: peers.map(|peer| self.session(listener, peer)).collect(),
        }
    }
}

/// An address that the networks do not hold; the first one where they hold all of them.
fn elsewhere(networks: &[IpNet]) -> IpAddr {
    let addresses: Vec<IpAddr> = CLIENTS.iter().filter_map(|text| text.parse().ok()).collect();
    let outside = addresses.iter().find(|address| !networks.iter().any(|network| network.contains(*address)));
    outside.or(addresses.first()).copied().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
}

fn a_host_of(network: &IpNet) -> IpAddr {
    network.hosts().next().unwrap_or(network.addr())
}
