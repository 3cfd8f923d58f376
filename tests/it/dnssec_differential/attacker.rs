//! Whoever owns evil.test., signs there what he likes, and would like to speak for others.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::wire::{Name, Record, kind, labels, name};

/// ECDSA P-256 with SHA-256.
const ALGORITHM: u8 = 13;
/// A number of an algorithm or of a digest that nobody knows.
pub(crate) const UNKNOWN: u8 = 200;

/// The attacker's zone and its only key.
pub(crate) struct Attacker {
    pub(crate) zone: Name,
    key: EcdsaKeyPair,
    /// The data of the key's DNSKEY record.
    pub(crate) dnskey: Vec<u8>,
    tag: u16,
}

impl Attacker {
    /// Reads the key that BIND's tools have made.
    pub(crate) fn read(folder: &Path, zone: &str) -> Self {
        let file = std::fs::read_dir(folder)
            .expect("the folder of the keys")
            .filter_map(|file| file.ok().map(|file| file.path()))
            .find(|path| {
                let name = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default();
                name.starts_with(&format!("K{zone}+")) && name.ends_with(".private")
            })
            .expect("the attacker's key");
        let private = std::fs::read_to_string(&file).expect("the private key");
        let private = private
            .lines()
            .find_map(|line| line.strip_prefix("PrivateKey: "))
            .expect("an ECDSA key");
        let private = STANDARD.decode(private.trim()).expect("base64");
        let public = std::fs::read_to_string(file.with_extension("key")).expect("the public key");
        let public = public
            .lines()
            .find(|line| !line.starts_with(';'))
            .expect("a DNSKEY record");
        let words: Vec<&str> = public.split_whitespace().collect();
        let at = words
            .iter()
            .position(|word| *word == "DNSKEY")
            .expect("a DNSKEY record")
            + 4;
        let public = STANDARD.decode(words[at..].concat()).expect("base64");
        let point = [&[4], public.as_slice()].concat();
        let key = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &private,
            &point,
        )
        .expect("a key");
        let dnskey = [&[1, 1, 3, ALGORITHM], public.as_slice()].concat();
        Self {
            zone: name(zone),
            key,
            tag: tag(&dnskey),
            dnskey,
        }
    }

    /// His signature over an RRset, made in the name of any zone.
    pub(crate) fn signature(&self, set: &[Record], signer: &[u8]) -> Record {
        let first = &set[0];
        let count = labels(&first.owner)
            .iter()
            .filter(|label| **label != b"*")
            .count();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs();
        let now = u32::try_from(now).expect("before 2106");
        let mut data = first.kind.to_be_bytes().to_vec();
        data.extend([ALGORITHM, u8::try_from(count).expect("few labels")]);
        data.extend(first.ttl.to_be_bytes());
        data.extend((now + 86400).to_be_bytes());
        data.extend((now - 3600).to_be_bytes());
        data.extend(self.tag.to_be_bytes());
        data.extend(signer);
        let mut sorted: Vec<&Vec<u8>> = set.iter().map(|record| &record.data).collect();
        sorted.sort();
        let mut octets = data.clone();
        for record in sorted {
            octets.extend(&first.owner);
            octets.extend(first.kind.to_be_bytes());
            octets.extend(first.class.to_be_bytes());
            octets.extend(first.ttl.to_be_bytes());
            octets.extend(
                u16::try_from(record.len())
                    .expect("short data")
                    .to_be_bytes(),
            );
            octets.extend(record);
        }
        let signature = self
            .key
            .sign(&SystemRandom::new(), &octets)
            .expect("a signature");
        data.extend(signature.as_ref());
        Record {
            data,
            kind: kind::RRSIG,
            ..first.clone()
        }
    }

    /// An RRset with his signature.
    pub(crate) fn signed(&self, mut set: Vec<Record>, signer: &[u8]) -> Vec<Record> {
        set.push(self.signature(&set, signer));
        set
    }

    /// His key as a DNSKEY record of any zone.
    pub(crate) fn key_of(&self, zone: &[u8]) -> Record {
        Record::new(zone, kind::DNSKEY, self.dnskey.clone())
    }

    /// A DS record at `owner` that means his key as a key of `zone`.
    pub(crate) fn ds(&self, owner: &[u8], zone: &[u8], algorithm: u8, digest_type: u8) -> Record {
        let mut data = self.tag.to_be_bytes().to_vec();
        data.extend([algorithm, digest_type]);
        data.extend(digest(&SHA256, &[zone, self.dnskey.as_slice()].concat()).as_ref());
        Record::new(owner, kind::DS, data)
    }

    pub(crate) fn algorithm() -> u8 {
        ALGORITHM
    }
}

/// RFC 4034, appendix B.
fn tag(dnskey: &[u8]) -> u16 {
    let sum: u32 = dnskey
        .iter()
        .enumerate()
        .map(|(at, octet)| u32::from(*octet) << if at % 2 == 0 { 8 } else { 0 })
        .sum();
    u16::try_from((sum + (sum >> 16)) & 0xffff).expect("16 bits")
}

/// An NSEC3 record's hash of a name (RFC 5155 §5).
pub(crate) fn hashed(name: &[u8], salt: &[u8], iterations: u16) -> Vec<u8> {
    let mut hash = name.to_vec();
    for _ in 0..=iterations {
        hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[&hash, salt].concat())
            .as_ref()
            .to_vec();
    }
    hash
}

const BASE32: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// Base 32 with the extended hex alphabet, without padding.
pub(crate) fn base32(octets: &[u8]) -> String {
    let bit = |at: usize| {
        octets
            .get(at / 8)
            .is_some_and(|octet| octet & (128 >> (at % 8)) != 0)
    };
    (0..(octets.len() * 8).div_ceil(5))
        .map(|digit| {
            (0..5).fold(0, |value, offset| {
                value * 2 + usize::from(bit(digit * 5 + offset))
            })
        })
        .map(|value| char::from(BASE32[value]))
        .collect()
}

/// The reverse of [`base32`].
pub(crate) fn unbase32(text: &[u8]) -> Vec<u8> {
    let mut bits = Vec::new();
    for letter in text.to_ascii_lowercase() {
        let value = BASE32
            .iter()
            .position(|known| *known == letter)
            .unwrap_or(0);
        bits.extend((0..5).rev().map(|bit| value >> bit & 1 == 1));
    }
    bits.as_chunks::<8>()
        .0
        .iter()
        .map(|octet| {
            octet
                .iter()
                .fold(0, |value, bit| value << 1 | u8::from(*bit))
        })
        .collect()
}
