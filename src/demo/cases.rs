//! The cases that the demo plays: domains, their TLS and policies, and the outcome that each policy
//! promises.

/// The name that the partner's certificates must have.
pub(super) const PARTNER: &str = "mail.partner.example";

/// The sender of outgoing messages.
pub(super) const SENDER: &str = "alice@our.example";

/// The TLS of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerTls {
    NoTls,
    BrokenTls,
    Good,
    GoodAndDemandsTls,
    OtherName,
    SelfSigned,
    Expired,
}

/// The demand of the connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DemoPolicy {
    Opportunistic,
    Forced,
    ForcedName,
}

impl DemoPolicy {
    pub(super) fn by_name(self) -> bool {
        self == Self::ForcedName
    }

    pub(super) fn toml(self) -> &'static str {
        match self {
            Self::Opportunistic => "tls = \"opportunistic\"",
            Self::Forced => "tls = \"forced\"\nverify = \"none\"",
            Self::ForcedName => "tls = \"forced\"\nverify = \"name\"",
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Opportunistic => "opportunistic",
            Self::Forced => "forced",
            Self::ForcedName => "forced, by name",
        }
    }
}

/// The outcome that the policy promises for an outgoing message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpectedEnd {
    Clear,
    ClearOnFreshConnection,
    Tls,
    TlsUntrusted,
    TlsVerified(&'static str),
    Dane,
    /// Deferred with this status, after a session in which no MAIL FROM was sent.
    Refused(&'static str),
    /// Deferred with this status, without dialling the peer.
    NotDialled(&'static str),
}

/// A case of outgoing mail.
#[derive(Debug)]
pub(super) struct OutgoingCase {
    pub(super) title: &'static str,
    pub(super) domain: &'static str,
    pub(super) policy: DemoPolicy,
    pub(super) shows: PeerTls,
    pub(super) promise: ExpectedEnd,
}

const fn outgoing(
    title: &'static str,
    domain: &'static str,
    policy: DemoPolicy,
    shows: PeerTls,
    promise: ExpectedEnd,
) -> OutgoingCase {
    OutgoingCase {
        title,
        domain,
        policy,
        shows,
        promise,
    }
}

/// The cases of outgoing mail. Each has its own peer.
pub(super) const OUTGOING: &[OutgoingCase] = &[
    outgoing(
        "offers TLS",
        "o1.example",
        DemoPolicy::Opportunistic,
        PeerTls::Good,
        ExpectedEnd::Tls,
    ),
    outgoing(
        "has no TLS",
        "o2.example",
        DemoPolicy::Opportunistic,
        PeerTls::NoTls,
        ExpectedEnd::Clear,
    ),
    outgoing(
        "its TLS is broken",
        "o3.example",
        DemoPolicy::Opportunistic,
        PeerTls::BrokenTls,
        ExpectedEnd::ClearOnFreshConnection,
    ),
    outgoing(
        "self-signed certificate",
        "o4.example",
        DemoPolicy::Opportunistic,
        PeerTls::SelfSigned,
        ExpectedEnd::TlsUntrusted,
    ),
    outgoing(
        "has no TLS",
        "f1.example",
        DemoPolicy::Forced,
        PeerTls::NoTls,
        ExpectedEnd::Refused("4.7.4"),
    ),
    outgoing(
        "offers TLS",
        "f2.example",
        DemoPolicy::Forced,
        PeerTls::Good,
        ExpectedEnd::Tls,
    ),
    outgoing(
        "demands TLS itself",
        "f3.example",
        DemoPolicy::Forced,
        PeerTls::GoodAndDemandsTls,
        ExpectedEnd::Tls,
    ),
    outgoing(
        "certificate of another name",
        "n1.example",
        DemoPolicy::ForcedName,
        PeerTls::OtherName,
        ExpectedEnd::Refused("4.7.5"),
    ),
    outgoing(
        "self-signed certificate",
        "n2.example",
        DemoPolicy::ForcedName,
        PeerTls::SelfSigned,
        ExpectedEnd::Refused("4.7.5"),
    ),
    outgoing(
        "expired certificate",
        "n3.example",
        DemoPolicy::ForcedName,
        PeerTls::Expired,
        ExpectedEnd::Refused("4.7.5"),
    ),
    outgoing(
        "certificate of the right name",
        "n4.example",
        DemoPolicy::ForcedName,
        PeerTls::Good,
        ExpectedEnd::TlsVerified(PARTNER),
    ),
];

/// The client of a case of incoming mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DemoClient {
    /// It does not use TLS.
    NoTls,
    /// It uses TLS without a certificate.
    NoCertificate,
    /// It shows a certificate with another name.
    OtherName,
    /// It shows the partner's certificate.
    RightName,
}

/// A case of incoming mail.
#[derive(Debug)]
pub(super) struct IncomingCase {
    pub(super) title: &'static str,
    pub(super) policy: &'static str,
    pub(super) sender: &'static str,
    pub(super) client: DemoClient,
    /// The code of the last reply.
    pub(super) promise: &'static str,
}

const fn incoming(
    title: &'static str,
    policy: &'static str,
    sender: &'static str,
    client: DemoClient,
    promise: &'static str,
) -> IncomingCase {
    IncomingCase {
        title,
        policy,
        sender,
        client,
        promise,
    }
}

/// A sender whose connector has the policy `opportunistic`.
const ANYBODY: &str = "someone@else.example";
/// A sender of the partner whose certificate must have the right name.
const PARTNERS_SENDER: &str = "dave@partner.example";

/// The cases of incoming mail.
pub(super) const INCOMING: &[IncomingCase] = &[
    incoming(
        "client uses TLS",
        "opportunistic",
        ANYBODY,
        DemoClient::NoCertificate,
        "250",
    ),
    incoming(
        "client does not use TLS",
        "opportunistic",
        ANYBODY,
        DemoClient::NoTls,
        "250",
    ),
    incoming(
        "client does not use TLS",
        "forced",
        "carol@forced.example",
        DemoClient::NoTls,
        "530",
    ),
    incoming(
        "partner without a certificate",
        "forced, by name",
        PARTNERS_SENDER,
        DemoClient::NoCertificate,
        "550",
    ),
    incoming(
        "partner's certificate of another name",
        "forced, by name",
        PARTNERS_SENDER,
        DemoClient::OtherName,
        "550",
    ),
    incoming(
        "partner's certificate of the right name",
        "forced, by name",
        PARTNERS_SENDER,
        DemoClient::RightName,
        "250",
    ),
];

/// The records and policies that a domain publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DomainRecords {
    /// A TLSA record for the certificate of its host.
    Tlsa,
    /// A TLSA record for another certificate.
    TlsaOfAnother,
    /// A TLSA record with an expired signature.
    TlsaBroken,
    /// An MTA-STS policy that lists its host.
    Sts(&'static str),
    /// An MTA-STS policy that lists another host.
    StsOfAnother(&'static str),
}

/// A domain that publishes a policy. Each has its own host.
#[derive(Debug)]
pub(super) struct PublishingDomain {
    pub(super) title: &'static str,
    pub(super) domain: &'static str,
    pub(super) publishes: DomainRecords,
    pub(super) shows: PeerTls,
    pub(super) promise: ExpectedEnd,
}

const fn publisher(
    title: &'static str,
    domain: &'static str,
    publishes: DomainRecords,
    shows: PeerTls,
    promise: ExpectedEnd,
) -> PublishingDomain {
    PublishingDomain {
        title,
        domain,
        publishes,
        shows,
        promise,
    }
}

/// The domains that publish a policy. The connectors of all of them are opportunistic.
pub(super) const PUBLISHERS: &[PublishingDomain] = &[
    publisher(
        "shows the certificate of its TLSA record",
        "d1.example",
        DomainRecords::Tlsa,
        PeerTls::SelfSigned,
        ExpectedEnd::Dane,
    ),
    publisher(
        "shows another certificate",
        "d2.example",
        DomainRecords::TlsaOfAnother,
        PeerTls::Good,
        ExpectedEnd::Refused("4.7.5"),
    ),
    publisher(
        "its TLSA record has a broken signature",
        "d3.example",
        DomainRecords::TlsaBroken,
        PeerTls::Good,
        ExpectedEnd::NotDialled("4.7.5"),
    ),
    publisher(
        "listed host, certificate of the right name",
        "m1.example",
        DomainRecords::Sts("enforce"),
        PeerTls::Good,
        ExpectedEnd::TlsVerified("mx.m1.example"),
    ),
    publisher(
        "its host is not listed",
        "m2.example",
        DomainRecords::StsOfAnother("enforce"),
        PeerTls::Good,
        ExpectedEnd::NotDialled("4.7.5"),
    ),
    publisher(
        "listed host, certificate of another name",
        "m3.example",
        DomainRecords::Sts("enforce"),
        PeerTls::OtherName,
        ExpectedEnd::Refused("4.7.5"),
    ),
    publisher(
        "listed host, no TLS",
        "m4.example",
        DomainRecords::Sts("enforce"),
        PeerTls::NoTls,
        ExpectedEnd::Refused("4.7.4"),
    ),
    publisher(
        "listed host, certificate of another name",
        "m5.example",
        DomainRecords::Sts("testing"),
        PeerTls::OtherName,
        ExpectedEnd::TlsUntrusted,
    ),
];

/// The domains whose STARTTLS is stripped after a first delivery, with the connector's `downgrade`.
pub(super) const DOWNGRADED: [(&str, &str, ExpectedEnd); 2] = [
    ("w1.example", "warn", ExpectedEnd::Clear),
    ("w2.example", "refuse", ExpectedEnd::Refused("4.7.4")),
];

impl PublishingDomain {
    pub(super) fn policy_text(&self) -> String {
        match self.publishes {
            DomainRecords::Tlsa | DomainRecords::TlsaOfAnother | DomainRecords::TlsaBroken => {
                "opportunistic, DANE".to_owned()
            }
            DomainRecords::Sts(mode) | DomainRecords::StsOfAnother(mode) => {
                format!("opportunistic, MTA-STS {mode}")
            }
        }
    }

    /// Returns the domain's MTA-STS policy.
    pub(super) fn policy(&self) -> Option<String> {
        let (mode, host) = match self.publishes {
            DomainRecords::Tlsa | DomainRecords::TlsaOfAnother | DomainRecords::TlsaBroken => {
                return None;
            }
            DomainRecords::Sts(mode) => (mode, "mx"),
            DomainRecords::StsOfAnother(mode) => (mode, "other"),
        };
        Some(format!(
            "version: STSv1\nmode: {mode}\nmx: {host}.{}\nmax_age: 86400\n",
            self.domain
        ))
    }
}
