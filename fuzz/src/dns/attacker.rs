//! The attacker's own signed zone, `owned.test`: its parent vouches for its key, so the attacker
//! can sign any record with it.

use std::sync::LazyLock;
use std::time::Duration;

use data_encoding::BASE32_DNSSEC;
use gatepost::demo::zones::full_name;
use hickory_resolver::proto::dnssec::crypto::EcdsaSigningKey;
use hickory_resolver::proto::dnssec::rdata::{DNSKEY, DNSSECRData, DS, NSEC, NSEC3, RRSIG, SigInput};
use hickory_resolver::proto::dnssec::{
    Algorithm, DigestType, DnssecSigner, Nsec3HashAlgorithm, PublicKey as _, SigningKey as _, TBS,
};
use hickory_resolver::proto::rr::rdata::{A, CNAME, MX, NS, TLSA};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType, SerialNumber};
use jiff::Timestamp;

/// The name of the zone.
pub(super) const ZONE: &str = "owned.test";
/// The names that records are signed for: the attacker's own, and others.
const NAMES: [&str; 16] = [
    ZONE,
    "mx.owned.test",
    "_25._tcp.mx.owned.test",
    "*.owned.test",
    "a.b.owned.test",
    "b.owned.test",
    "*.b.owned.test",
    "zz.owned.test",
    "test",
    "good.test",
    "mx.good.test",
    "_25._tcp.mx.good.test",
    "nobody.good.test",
    "plain.test",
    ".",
    "under.mx.owned.test",
];
/// The numbers of NSEC3 iterations.
const ITERATIONS: [u16; 4] = [0, 1, 20, 500];

struct Attacker {
    key: DNSKEY,
    tag: u16,
    signer: DnssecSigner,
}

static ATTACKER: LazyLock<Attacker> = LazyLock::new(|| {
    let algorithm = Algorithm::ECDSAP256SHA256;
    let pkcs8 = EcdsaSigningKey::generate_pkcs8(algorithm).expect("a key");
    let key = EcdsaSigningKey::from_pkcs8(&pkcs8, algorithm).expect("a key");
    let public = DNSKEY::with_flags(257, key.to_public_key().expect("a key"));
    let tag = public.calculate_key_tag().expect("a tag");
    let signer = DnssecSigner::new(public.clone(), Box::new(key), name(ZONE), Duration::ZERO);
    Attacker { key: public, tag, signer }
});

fn name(text: &str) -> Name {
    full_name(text).expect("a name")
}

fn digest(owner: &Name) -> DS {
    let attacker = &*ATTACKER;
    let digest = attacker.key.to_digest(owner, DigestType::SHA256).expect("a digest");
    DS::new(attacker.tag, attacker.key.public_key().algorithm(), DigestType::SHA256, digest.as_ref().to_vec())
}

/// Returns the DS record by which the parent vouches for the zone, as in the parent's zone file.
pub(super) fn delegation() -> String {
    let hex: String = digest(&name(ZONE)).digest().iter().map(|octet| format!("{octet:02x}")).collect();
    format!("{ZONE} DS {} 13 2 {hex}\n", ATTACKER.tag)
}

/// Returns the keys of the zone, signed.
pub(super) fn keys() -> Vec<Record> {
    signed(name(ZONE), RData::DNSSEC(DNSSECRData::DNSKEY(ATTACKER.key.clone())), &name(ZONE), None)
}

/// Returns a record with its signature, as the arguments specify: owner, type of record, target,
/// signer and labels.
pub(super) fn record(arguments: [u8; 5]) -> Vec<Record> {
    let [owner, kind, other, types, how] = arguments;
    let pick = |number: u8| name(NAMES[usize::from(number) % NAMES.len()]);
    let (mut owner, other) = (pick(owner), pick(other));
    let all = [
        RecordType::A,
        RecordType::MX,
        RecordType::TLSA,
        RecordType::CNAME,
        RecordType::DNAME,
        RecordType::NS,
        RecordType::DS,
        RecordType::SOA,
    ];
    let types = all.into_iter().enumerate().filter(|(at, _)| types >> at & 1 == 1).map(|(_, kind)| kind);
    let data = match kind % 10 {
        0 => RData::A(A::new(192, 0, 2, 99)),
        1 => RData::MX(MX::new(10, other)),
        2 => RData::TLSA(TLSA::new(3_u8.into(), 1_u8.into(), 1_u8.into(), vec![0x66; 32])),
        3 => RData::CNAME(CNAME(other)),
        4 => RData::NS(NS(other)),
        5 => RData::DNSSEC(DNSSECRData::DS(digest(&owner))),
        6 => RData::DNSSEC(DNSSECRData::DNSKEY(ATTACKER.key.clone())),
        7 => RData::DNSSEC(DNSSECRData::NSEC(NSEC::new(other, types))),
        _ => {
            let iterations = ITERATIONS[usize::from(how >> 4 & 3)];
            let hash =
                |name: &Name| Nsec3HashAlgorithm::SHA1.hash(b"s", name, iterations).expect("a hash").as_ref().to_vec();
            // One less and one more than a hash cover the name itself.
            let step = |mut hash: Vec<u8>, up: bool| {
                if let Some(last) = hash.last_mut() {
                    *last = if up { last.wrapping_add(1) } else { last.wrapping_sub(1) };
                }
                hash
            };
            let covers = kind % 10 == 9;
            let (mut first, mut next) = (hash(&owner), hash(&other));
            if covers {
                (first, next) = (step(first.clone(), false), step(first, true));
            }
            owner = name(&format!("{}.{ZONE}", BASE32_DNSSEC.encode(&first)));
            let opt_out = how & 0x80 != 0;
            let nsec3 = NSEC3::new(Nsec3HashAlgorithm::SHA1, opt_out, iterations, b"s".to_vec(), next, types);
            RData::DNSSEC(DNSSECRData::NSEC3(nsec3))
        }
    };
    let labels = (how & 8 != 0).then_some(how & 7);
    let signer = if how & 0x40 == 0 { name(ZONE) } else { pick(how) };
    signed(owner, data, &signer, labels)
}

fn signed(owner: Name, data: RData, signer: &Name, labels: Option<u8>) -> Vec<Record> {
    let now = u32::try_from(Timestamp::now().as_second()).expect("before 2106");
    let record = Record::from_rdata(owner.clone(), 300, data);
    let input = SigInput {
        type_covered: record.record_type(),
        algorithm: Algorithm::ECDSAP256SHA256,
        num_labels: labels.unwrap_or_else(|| owner.num_labels()),
        original_ttl: 300,
        sig_expiration: SerialNumber::new(now.wrapping_add(3600)),
        sig_inception: SerialNumber::new(now.wrapping_sub(3600)),
        key_tag: ATTACKER.tag,
        signer_name: signer.clone(),
    };
    let Ok(octets) = TBS::from_input(&owner, DNSClass::IN, &input, std::iter::once(&record)) else {
        return vec![record];
    };
    let signature = ATTACKER.signer.sign(&octets).expect("a signature");
    let data = RData::DNSSEC(DNSSECRData::RRSIG(RRSIG::from_sig(input, signature)));
    vec![record, Record::from_rdata(owner, 300, data)]
}
