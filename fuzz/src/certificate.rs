//! The certificates of a peer: nothing is trusted that no authority signed, and texts about
//! certificates are short.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use gatepost::smtp::address::Domain;
use gatepost::config::{self, Connector};
use gatepost::net::tls_io::{ChainChecks, TlsMaterial, PathChecks, Role, CompletedHandshake, SentCertificate};
use gatepost::policy::tls::{
    CertificateFacts, DaneFacts, DaneScope, NamePattern, PeerCertificate, Tlsa, TlsaMatching, TlsaSelector, TlsaSet,
    TlsaUsage,
};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use tokio::runtime::Runtime;

/// The maximum numbers of certificates in one chain, of those that are reported, and of changes to
/// one.
const CHAIN_MAX: usize = 16;
const TOLD_MAX: usize = 10;
const CHANGES_MAX: usize = 8;
/// The maximum length of a text about a certificate, in octets.
const WORDS_MAX: usize = 4000;
/// The time of all sessions: 2027-06-01. One of the certificates has expired before.
const NOW: i64 = 1_811_808_000;

macro_rules! certificates {
    ($($name:literal),*) => { [$(($name, include_bytes!(concat!("../certificates/", $name, ".der")))),*] };
}

/// The genuine certificates. Their keys were destroyed.
static GENUINE: [(&str, &[u8]); 17] = certificates!(
    "good", "inter", "ca", "rsa", "ed", "own", "old", "client", "sign", "foreign", "other", "under", "weak", "outside",
    "named", "odd", "one"
);

struct World {
    material: Arc<TlsMaterial>,
    connector: Arc<Connector>,
    runtime: Runtime,
    sets: Vec<Arc<TlsaSet>>,
    /// The signed parts of the certificates that are trusted in either role.
    trusted: [Vec<Vec<u8>>; 2],
}

static WORLD: LazyLock<World> = LazyLock::new(World::new);

impl World {
    fn new() -> Self {
        let text = format!(
            "hostname = \"relay.example.com\"\npostmaster = \"postmaster@example.com\"\n[[listener]]\nname = \"mx\"\n\
             address = [\"127.0.0.1:2525\"]\ntls = \"off\"\n[[connector]]\nname = \"partner\"\ndomains = \
             [\"example.org\"]\ntrust = \"{}/certificates/ca.pem\"\n[connector.outbound]\ntls = \"forced\"\nverify = \
             \"chain\"\n",
            env!("CARGO_MANIFEST_DIR")
        );
        let (config, _) = config::parse(&text, Path::new("gatepost.toml")).expect("a configuration");
        let (material, _) = TlsMaterial::load(&config).expect("an authority");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let connector = config.connectors[0].clone();
        let mut world = Self { material, connector, runtime, sets: Vec::new(), trusted: Default::default() };
        let expected = [vec!["good", "rsa", "ed"], vec!["good", "rsa", "ed", "client"]];
        for ((role, expected), number) in [Role::Server, Role::Client].into_iter().zip(expected).zip(0..) {
            let is_trusted =
                |der: &[u8]| world.facts(&genuine_chain(der), role, None).is_some_and(|facts| facts.chain.is_ok());
            let trusted: Vec<_> = GENUINE.iter().filter(|(_, der)| is_trusted(der)).collect();
            let names: Vec<_> = trusted.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, expected, "the genuine certificates in the role {role:?}");
            world.trusted[number] =
                trusted.iter().map(|(_, der)| signed_part(der).expect("it is genuine").to_vec()).collect();
        }
        world.sets = world.tlsa_sets();
        world
    }

    fn tlsa_sets(&self) -> Vec<Arc<TlsaSet>> {
        let key = |name: &str| self.facts(&genuine_chain(genuine(name)), Role::Server, None).expect("a key").key;
        let record = |usage, selector, matching, data: &[u8]| Tlsa { usage, selector, matching, data: data.to_vec() };
        let by_key = |usage, name| record(usage, TlsaSelector::PublicKey, TlsaMatching::Sha256, key(name).hash());
        let whole = |usage, name| record(usage, TlsaSelector::Certificate, TlsaMatching::Full, genuine(name));
        let (authority, own) = (TlsaUsage::TrustAnchor, TlsaUsage::EndEntity);
        let sets = [
            vec![by_key(own, "good")],
            vec![whole(authority, "ca"), by_key(own, "rsa")],
            vec![by_key(authority, "inter")],
            vec![whole(own, "own"), by_key(authority, "ca")],
        ];
        let base = Domain::parse("mx.example.org").expect("a domain");
        let names = vec![NamePattern::Exact(base.clone())];
        let set = |records| TlsaSet { base: base.clone(), records, names: names.clone(), scope: DaneScope::Domain };
        sets.into_iter().map(|records| Arc::new(set(records))).collect()
    }

    fn facts(
        &self,
        chain: &[CertificateDer<'static>],
        role: Role,
        tlsa: Option<&Arc<TlsaSet>>,
    ) -> Option<CertificateFacts> {
        let client = self.material.client(&self.connector);
        let against = ChainChecks { paths: PathChecks { connector: true, default: false, revocation: false }, ..client.checks(tlsa) };
        let now = Timestamp::from_second(NOW).expect("a time");
        let seen = CompletedHandshake::fuzzed(chain);
        match self.runtime.block_on(seen.facts(against, role, now)).certificate {
            PeerCertificate::Certificate(facts) => Some(*facts),
            PeerCertificate::Unproved(key) => {
                check_words(&key.to_string());
                None
            }
            PeerCertificate::Nothing => {
                assert!(chain.is_empty(), "a chain was not seen");
                None
            }
        }
    }
}

fn genuine(name: &str) -> &'static [u8] {
    GENUINE.iter().find(|(known, _)| *known == name).expect("it is listed").1
}

/// Returns a certificate with every authority above it.
fn genuine_chain(der: &[u8]) -> Vec<CertificateDer<'static>> {
    let above = ["inter", "weak", "named"].map(genuine);
    [der].into_iter().chain(above).map(|der| CertificateDer::from(der.to_vec())).collect()
}

/// Returns the signed part of a certificate: its first element.
fn signed_part(der: &[u8]) -> Option<&[u8]> {
    let length = |octets: &[u8]| match octets {
        [0x30, 0x82, high, low, ..] => Some(4 + usize::from(u16::from_be_bytes([*high, *low]))),
        [0x30, 0x81, length, ..] => Some(3 + usize::from(*length)),
        [0x30, length @ 0..=0x7f, ..] => Some(2 + usize::from(*length)),
        _ => None,
    };
    let whole = length(der)?;
    let header = [4, 3, 2][usize::from(der.get(1)? < &0x82) + usize::from(der.get(1)? < &0x80)];
    let inner = der.get(header..whole.min(der.len()))?;
    inner.get(..length(inner)?)
}

pub(crate) fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let chain = chain(rest);
    let (role, number) = if kind & 1 == 0 { (Role::Server, 0) } else { (Role::Client, 1) };
    let world = &*WORLD;
    let set = world.sets.get(usize::from(kind >> 1 & 7));
    let told = CompletedHandshake::fuzzed(&chain).certificates();
    assert_eq!(told.len(), chain.len().min(TOLD_MAX));
    told.iter().for_each(check_told);
    let Some(facts) = world.facts(&chain, role, set) else { return };
    let leaf = &chain[0];
    check_words(&facts.issuer);
    assert!(facts.names.len() <= leaf.len() / 3, "{} names in {} octets", facts.names.len(), leaf.len());
    let signed = signed_part(leaf);
    let is_known = |number: usize| signed.is_some_and(|part| world.trusted[number].iter().any(|known| known == part));
    match &facts.chain {
        Ok(()) => assert!(is_known(number), "nobody signed {}", leaf.escape_ascii()),
        Err(fault) => check_words(&fault.to_string()),
    }
    match &facts.dane {
        DaneFacts::NotChecked => assert!(set.is_none(), "it was not held against its records"),
        DaneFacts::Checked { result: Err(fault), .. } => check_words(&fault.to_string()),
        DaneFacts::Checked { result: Ok(record), .. } => match (record.usage, record.matching) {
            (TlsaUsage::TrustAnchor, _) => {
                assert!(is_known(0), "no authority of a record signed {}", leaf.escape_ascii());
                assert!(
                    facts
                        .names
                        .iter()
                        .any(|name| NamePattern::parse("mx.example.org").is_ok_and(|wanted| wanted.accepts(name)))
                );
            }
            (TlsaUsage::EndEntity, TlsaMatching::Full) => assert_eq!(&leaf[..], record.data, "another certificate"),
            (TlsaUsage::EndEntity, _) => assert_eq!(&facts.key.hash()[..], record.data, "another key"),
        },
    }
}

fn check_told(told: &SentCertificate) {
    let SentCertificate::Readable(words) = told else { return };
    check_words(&words.subject);
    check_words(&words.issuer);
}

/// Checks that a text for logs is short and one line.
fn check_words(words: &str) {
    assert!(words.len() <= WORDS_MAX, "{} octets: {words}", words.len());
    assert!(!words.chars().any(char::is_control), "a control character: {words:?}");
}

/// Reads a chain: one octet for each certificate. Most name a genuine one, with changes if the
/// highest bit is set; 0x7f is followed by arbitrary octets.
fn chain(mut input: &[u8]) -> Vec<CertificateDer<'static>> {
    let mut chain = Vec::new();
    while let Some((kind, rest)) = input.split_first()
        && chain.len() < CHAIN_MAX
    {
        input = rest;
        let der = if *kind == 0x7f {
            let Some(([high, low], rest)) = input.split_first_chunk() else { break };
            let (der, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()));
            input = rest;
            der.to_vec()
        } else {
            let mut der = GENUINE[usize::from(kind & 0x7f) % GENUINE.len()].1.to_vec();
            if kind & 0x80 != 0 {
                input = change(&mut der, input);
            }
            der
        };
        chain.push(CertificateDer::from(der));
    }
    chain
}

/// Changes the octets of a certificate: the number of changes, then for each the position, the kind
/// and a value.
fn change<'a>(der: &mut Vec<u8>, input: &'a [u8]) -> &'a [u8] {
    let Some((count, mut rest)) = input.split_first() else { return input };
    for _ in 0..usize::from(*count).min(CHANGES_MAX) {
        let Some(([high, low, kind, value], more)) = rest.split_first_chunk() else { return rest };
        rest = more;
        let at = usize::from(u16::from_be_bytes([*high, *low])) % (der.len() + 1);
        match kind % 5 {
            0 => der.insert(at, *value),
            1 => der.truncate(at.max(4)),
            kind if at < der.len() => match kind {
                2 => der[at] = *value,
                3 => der[at] ^= value,
                _ => drop(der.remove(at)),
            },
            _ => {}
        }
    }
    rest
}
