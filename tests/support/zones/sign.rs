//! Zones with their keys, signatures and NSEC chains, and what each parent says about its children.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use hickory_resolver::proto::dnssec::crypto::EcdsaSigningKey;
use hickory_resolver::proto::dnssec::rdata::{DNSKEY, DNSSECRData, DS, NSEC, RRSIG, SigInput};
use hickory_resolver::proto::dnssec::{Algorithm, DigestType, DnssecSigner, PublicKey as _, SigningKey as _, TBS};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, NS, SOA, TLSA, TXT};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType, SerialNumber};

use super::{Kind, full};

/// The TTL of everything but denials.
const TTL: u32 = 3600;
/// The TTL of denials.
const NEGATIVE_TTL: u32 = 60;

type Set = (Name, RecordType);

/// One zone, signed as its kind says.
pub(super) struct Zone {
    pub(super) origin: Name,
    pub(super) kind: Kind,
    sets: BTreeMap<Set, Vec<Record>>,
    signatures: BTreeMap<Set, Record>,
    /// Every name that exists, empty non-terminals included.
    names: BTreeSet<Name>,
    key: DNSKEY,
    signer: DnssecSigner,
}

/// The root and all zones below it.
pub(super) fn house(written: &[(String, Kind, String)]) -> Vec<Zone> {
    let mut zones = vec![Zone::new(Name::root(), Kind::Signed, "")];
    zones.extend(written.iter().map(|(origin, kind, records)| Zone::new(full(origin), *kind, records)));
    for child in 1..zones.len() {
        let delegation = zones[child].delegation();
        let origin = zones[child].origin.clone();
        let parents = zones.iter_mut().filter(|zone| zone.origin != origin && zone.origin.zone_of(&origin));
        let parent = parents.max_by_key(|zone| zone.origin.num_labels()).expect("the root at least");
        for record in delegation {
            parent.add(record);
        }
    }
    for zone in &mut zones {
        zone.sign();
    }
    zones
}

fn new_key(origin: &Name) -> (DNSKEY, DnssecSigner) {
    let algorithm = Algorithm::ECDSAP256SHA256;
    let pkcs8 = EcdsaSigningKey::generate_pkcs8(algorithm).expect("a key");
    let key = EcdsaSigningKey::from_pkcs8(&pkcs8, algorithm).expect("a key");
    let public = DNSKEY::with_flags(257, key.to_public_key().expect("its public half"));
    let signer = DnssecSigner::new(public.clone(), Box::new(key), origin.clone(), std::time::Duration::ZERO);
    (public, signer)
}

impl Zone {
    fn new(origin: Name, kind: Kind, records: &str) -> Self {
        let (key, signer) = new_key(&origin);
        let (sets, signatures, names) = Default::default();
        let mut zone = Self { origin, kind, sets, signatures, names, key, signer };
        let soa = SOA::new(full("ns.invalid"), full("root.invalid"), 1, 60, 60, 60, NEGATIVE_TTL);
        let apex = zone.origin.clone();
        zone.add(Record::from_rdata(apex.clone(), NEGATIVE_TTL, RData::SOA(soa)));
        zone.add(Record::from_rdata(apex.clone(), TTL, RData::NS(NS(full("ns.invalid")))));
        if !matches!(kind, Kind::Unsigned) {
            let key = RData::DNSSEC(DNSSECRData::DNSKEY(zone.key.clone()));
            zone.add(Record::from_rdata(apex, TTL, key));
        }
        for line in records.lines().map(str::trim).filter(|line| !line.is_empty()) {
            zone.add(record(line));
        }
        zone
    }

    fn add(&mut self, record: Record) {
        assert!(self.origin.zone_of(&record.name), "{record} is not in {}", self.origin);
        let mut name = record.name.clone();
        while name != self.origin {
            self.names.insert(name.clone());
            name = name.base_name();
        }
        self.names.insert(name);
        self.sets.entry((record.name.clone(), record.record_type())).or_default().push(record);
    }

    /// What the parent says: NS, and DS where it takes the zone for signed.
    fn delegation(&self) -> Vec<Record> {
        let mut records = vec![Record::from_rdata(self.origin.clone(), TTL, RData::NS(NS(full("ns.invalid"))))];
        let meant = match self.kind {
            Kind::Unsigned | Kind::Island => None,
            Kind::WrongKey => Some(new_key(&self.origin).0),
            Kind::Signed | Kind::SignedFor(_) | Kind::Expired | Kind::SignaturesLost => Some(self.key.clone()),
        };
        if let Some(key) = meant {
            let ds = RData::DNSSEC(DNSSECRData::DS(digest(&self.origin, &key)));
            records.push(Record::from_rdata(self.origin.clone(), TTL, ds));
        }
        records
    }

    /// The trust anchor for this zone, as it stands in a file: by kind of record.
    pub(super) fn anchors(&self) -> [(&'static str, String); 2] {
        let ds = digest(&self.origin, &self.key);
        let key = data_encoding(self.key.public_key().public_bytes());
        let hex: String = ds.digest().iter().map(|octet| format!("{octet:02x}")).collect();
        [("dnskey", format!(". IN DNSKEY 257 3 13 {key}\n")), ("ds", format!(". IN DS {} 13 2 {hex}\n", ds.key_tag()))]
    }

    /// Whether this zone has handed the name's subtree to another.
    pub(super) fn is_cut(&self, name: &Name) -> bool {
        *name != self.origin && self.sets.contains_key(&(name.clone(), RecordType::NS))
    }

    fn sign(&mut self) {
        if matches!(self.kind, Kind::Unsigned | Kind::SignaturesLost) {
            return;
        }
        self.chain();
        let sets = self.sets.iter().filter(|((name, kind), _)| !(self.is_cut(name) && *kind == RecordType::NS));
        self.signatures =
            sets.map(|((name, kind), records)| ((name.clone(), *kind), self.signature(name, *kind, records))).collect();
    }

    /// The NSEC chain (RFC 4034 §4). Empty non-terminals are not in it.
    fn chain(&mut self) {
        let owners: BTreeSet<Name> = self.sets.keys().map(|(name, _)| name.clone()).collect();
        let owners: Vec<Name> = owners.into_iter().collect();
        for (at, owner) in owners.iter().enumerate() {
            let next = owners.get(at + 1).unwrap_or(&self.origin).clone();
            let mut kinds: Vec<RecordType> =
                self.sets.keys().filter(|(name, _)| name == owner).map(|(_, kind)| *kind).collect();
            kinds.extend([RecordType::RRSIG, RecordType::NSEC]);
            let nsec = RData::DNSSEC(DNSSECRData::NSEC(NSEC::new(next, kinds)));
            let record = Record::from_rdata(owner.clone(), NEGATIVE_TTL, nsec);
            self.sets.insert((owner.clone(), RecordType::NSEC), vec![record]);
        }
    }

    fn signature(&self, name: &Name, kind: RecordType, records: &[Record]) -> Record {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let now = u32::try_from(now).expect("before 2106");
        let expiration = match self.kind {
            Kind::Expired => now - 60,
            Kind::SignedFor(seconds) => now + seconds,
            _ => now + 86400,
        };
        let input = SigInput {
            type_covered: kind,
            algorithm: Algorithm::ECDSAP256SHA256,
            num_labels: name.num_labels(),
            original_ttl: records[0].ttl,
            sig_expiration: SerialNumber::new(expiration),
            sig_inception: SerialNumber::new(now - 7200),
            key_tag: self.key.calculate_key_tag().expect("a tag"),
            signer_name: self.origin.clone(),
        };
        let signed = TBS::from_input(name, DNSClass::IN, &input, records.iter()).expect("to be signed");
        let signature = self.signer.sign(&signed).expect("signed");
        let rrsig = RData::DNSSEC(DNSSECRData::RRSIG(RRSIG::from_sig(input, signature)));
        Record::from_rdata(name.clone(), records[0].ttl, rrsig)
    }

    pub(super) fn exists(&self, name: &Name) -> bool {
        self.names.contains(name)
    }

    /// The records of a name and type with their signature, under the name that was asked for (a wildcard
    /// goes by many).
    pub(super) fn set(&self, name: &Name, kind: RecordType, asked: &Name) -> Option<Vec<Record>> {
        let key = (name.clone(), kind);
        let set = self.sets.get(&key)?.iter().chain(self.signatures.get(&key));
        let named = |mut record: Record| {
            record.name = asked.clone();
            record
        };
        Some(set.cloned().map(named).collect())
    }

    /// The NSEC record at a name, or the one that covers it.
    pub(super) fn nsec(&self, name: &Name) -> Vec<Record> {
        let owners = self.sets.keys().filter(|(_, kind)| *kind == RecordType::NSEC).map(|(owner, _)| owner);
        let owner = owners.filter(|owner| *owner <= name).max();
        owner.and_then(|owner| self.set(owner, RecordType::NSEC, owner)).unwrap_or_default()
    }
}

fn digest(origin: &Name, key: &DNSKEY) -> DS {
    let digest = key.to_digest(origin, DigestType::SHA256).expect("a digest");
    let tag = key.calculate_key_tag().expect("a tag");
    DS::new(tag, Algorithm::ECDSAP256SHA256, DigestType::SHA256, digest.as_ref().to_vec())
}

/// Base64 (RFC 4648 §4).
fn data_encoding(octets: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in octets.chunks(3) {
        let bits = chunk.iter().fold(0, |bits, octet| bits << 8 | u32::from(*octet)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let index = (bits >> (18 - 6 * at)) as usize & 63;
            text.push(if at <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    text
}

fn octets(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn record(line: &str) -> Record {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |text: &str| text.parse().expect("a number");
    let data = match words[1..] {
        ["A", address] => RData::A(A(address.parse().expect("an address"))),
        ["AAAA", address] => RData::AAAA(AAAA(address.parse().expect("an address"))),
        ["MX", preference, host] => RData::MX(MX::new(preference.parse().expect("a number"), full(host))),
        ["CNAME", target] => RData::CNAME(CNAME(full(target))),
        ["TXT", ref strings @ ..] => RData::TXT(TXT::new(strings.iter().map(|&text| text.to_owned()).collect())),
        ["TLSA", usage, selector, matching, hex] => RData::TLSA(TLSA::new(
            u8::into(number(usage)),
            u8::into(number(selector)),
            u8::into(number(matching)),
            octets(hex),
        )),
        _ => panic!("{line}"),
    };
    Record::from_rdata(full(words[0]), TTL, data)
}
