//! Builds zones with their keys, signatures, NSEC chains and delegations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use hickory_resolver::proto::dnssec::crypto::EcdsaSigningKey;
use hickory_resolver::proto::dnssec::rdata::{DNSKEY, DNSSECRData, DS, NSEC, RRSIG, SigInput};
use hickory_resolver::proto::dnssec::{
    Algorithm, DigestType, DnssecSigner, PublicKey as _, SigningKey as _, TBS,
};
use hickory_resolver::proto::rr::rdata::{NS, SOA};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType, SerialNumber};

use super::error::ZoneError;
use super::kind::Kind;
use super::record::{full_name, parse};

/// The TTL of records, in seconds.
const TTL: u32 = 3600;
/// The TTL of negative answers, in seconds.
const NEGATIVE_TTL: u32 = 60;

/// The name and type of a record set.
type RecordSetKey = (Name, RecordType);

/// A zone, signed as its kind says.
pub(super) struct DemoZone {
    pub(super) origin: Name,
    pub(super) kind: Kind,
    sets: BTreeMap<RecordSetKey, Vec<Record>>,
    signatures: BTreeMap<RecordSetKey, Record>,
    /// The names that exist, including empty non-terminals.
    names: BTreeSet<Name>,
    key: DNSKEY,
    signer: DnssecSigner,
}

/// Builds the root and all zones below it.
pub(super) fn build_zones<T: AsRef<str>>(
    written: &[(T, Kind, T)],
) -> Result<Vec<DemoZone>, ZoneError> {
    let mut zones = vec![DemoZone::new(Name::root(), Kind::Signed, "")?];
    for (origin, kind, records) in written {
        zones.push(DemoZone::new(
            full_name(origin.as_ref())?,
            *kind,
            records.as_ref(),
        )?);
    }
    for child in 1..zones.len() {
        let delegation = zones[child].delegation()?;
        let origin = zones[child].origin.clone();
        let parents = zones
            .iter_mut()
            .filter(|zone| zone.origin != origin && zone.origin.zone_of(&origin));
        let Some(parent) = parents.max_by_key(|zone| zone.origin.num_labels()) else {
            continue;
        };
        for record in delegation {
            parent.add(record)?;
        }
    }
    for zone in &mut zones {
        zone.sign()?;
    }
    Ok(zones)
}

fn new_key(origin: &Name) -> Result<(DNSKEY, DnssecSigner), ZoneError> {
    let algorithm = Algorithm::ECDSAP256SHA256;
    let pkcs8 = EcdsaSigningKey::generate_pkcs8(algorithm)?;
    let key = EcdsaSigningKey::from_pkcs8(&pkcs8, algorithm)?;
    let public = DNSKEY::with_flags(257, key.to_public_key()?);
    let signer = DnssecSigner::new(
        public.clone(),
        Box::new(key),
        origin.clone(),
        std::time::Duration::ZERO,
    );
    Ok((public, signer))
}

impl DemoZone {
    fn new(origin: Name, kind: Kind, records: &str) -> Result<Self, ZoneError> {
        let (key, signer) = new_key(&origin)?;
        let (sets, signatures, names) = Default::default();
        let mut zone = Self {
            origin,
            kind,
            sets,
            signatures,
            names,
            key,
            signer,
        };
        let soa = SOA::new(
            full_name("ns.invalid")?,
            full_name("root.invalid")?,
            1,
            60,
            60,
            60,
            NEGATIVE_TTL,
        );
        let apex = zone.origin.clone();
        zone.add(Record::from_rdata(
            apex.clone(),
            NEGATIVE_TTL,
            RData::SOA(soa),
        ))?;
        zone.add(Record::from_rdata(
            apex.clone(),
            TTL,
            RData::NS(NS(full_name("ns.invalid")?)),
        ))?;
        if !matches!(kind, Kind::Unsigned) {
            let key = RData::DNSSEC(DNSSECRData::DNSKEY(zone.key.clone()));
            zone.add(Record::from_rdata(apex, TTL, key))?;
        }
        for line in records
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            zone.add(parse(line, TTL)?)?;
        }
        Ok(zone)
    }

    fn add(&mut self, record: Record) -> Result<(), ZoneError> {
        if !self.origin.zone_of(&record.name) {
            return Err(ZoneError::Record(record.to_string()));
        }
        let mut name = record.name.clone();
        while name != self.origin {
            self.names.insert(name.clone());
            name = name.base_name();
        }
        self.names.insert(name);
        self.sets
            .entry((record.name.clone(), record.record_type()))
            .or_default()
            .push(record);
        Ok(())
    }

    /// Returns the records of the delegation in the parent zone: NS, and DS as the kind says.
    fn delegation(&self) -> Result<Vec<Record>, ZoneError> {
        let mut records = vec![Record::from_rdata(
            self.origin.clone(),
            TTL,
            RData::NS(NS(full_name("ns.invalid")?)),
        )];
        let signing_key = match self.kind {
            Kind::Unsigned | Kind::Island => None,
            Kind::WrongKey => Some(new_key(&self.origin)?.0),
            Kind::Signed | Kind::SignedFor(_) | Kind::Expired | Kind::SignaturesLost => {
                Some(self.key.clone())
            }
        };
        if let Some(key) = signing_key {
            let ds = RData::DNSSEC(DNSSECRData::DS(digest(&self.origin, &key)?));
            records.push(Record::from_rdata(self.origin.clone(), TTL, ds));
        }
        Ok(records)
    }

    /// Returns the zone's key as a trust anchor, in the form of a DNSKEY record.
    pub(super) fn anchor_dnskey(&self) -> String {
        let key =
            base64::engine::general_purpose::STANDARD.encode(self.key.public_key().public_bytes());
        format!(". IN DNSKEY 257 3 13 {key}\n")
    }

    /// Returns the zone's key as a trust anchor, in the form of a DS record.
    pub(super) fn anchor_ds(&self) -> Result<String, ZoneError> {
        let ds = digest(&self.origin, &self.key)?;
        let mut line = format!(". IN DS {} 13 2 ", ds.key_tag());
        for octet in ds.digest() {
            // Writing into a String cannot fail.
            let _ = write!(line, "{octet:02x}");
        }
        Ok(line + "\n")
    }

    /// Returns true if the name is a zone cut, that is, the origin of a zone below this one.
    pub(super) fn is_cut(&self, name: &Name) -> bool {
        *name != self.origin && self.sets.contains_key(&(name.clone(), RecordType::NS))
    }

    /// Adds the NSEC chain and the signatures. NS records of a delegation are not signed (RFC 4035
    /// §2.2).
    fn sign(&mut self) -> Result<(), ZoneError> {
        if matches!(self.kind, Kind::Unsigned | Kind::SignaturesLost) {
            return Ok(());
        }
        self.add_nsec_chain();
        let sets = self
            .sets
            .iter()
            .filter(|((name, kind), _)| !(self.is_cut(name) && *kind == RecordType::NS));
        let signed = sets.map(|((name, kind), records)| {
            Ok(((name.clone(), *kind), self.signature(name, *kind, records)?))
        });
        self.signatures = signed.collect::<Result<_, ZoneError>>()?;
        Ok(())
    }

    /// Adds the NSEC chain (RFC 4034 §4), which leaves out empty non-terminals.
    fn add_nsec_chain(&mut self) {
        let owners: BTreeSet<Name> = self.sets.keys().map(|(name, _)| name.clone()).collect();
        let owners: Vec<Name> = owners.into_iter().collect();
        for (at, owner) in owners.iter().enumerate() {
            let next = owners.get(at + 1).unwrap_or(&self.origin).clone();
            let mut kinds: Vec<RecordType> = self
                .sets
                .keys()
                .filter(|(name, _)| name == owner)
                .map(|(_, kind)| *kind)
                .collect();
            kinds.extend([RecordType::RRSIG, RecordType::NSEC]);
            let nsec = RData::DNSSEC(DNSSECRData::NSEC(NSEC::new(next, kinds)));
            let record = Record::from_rdata(owner.clone(), NEGATIVE_TTL, nsec);
            self.sets
                .insert((owner.clone(), RecordType::NSEC), vec![record]);
        }
    }

    fn signature(
        &self,
        name: &Name,
        kind: RecordType,
        records: &[Record],
    ) -> Result<Record, ZoneError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(|_| ZoneError::Clock)?;
        let now = u32::try_from(now.as_secs()).map_err(|_| ZoneError::Clock)?;
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
            key_tag: self.key.calculate_key_tag()?,
            signer_name: self.origin.clone(),
        };
        let signed = TBS::from_input(name, DNSClass::IN, &input, records.iter())?;
        let signature = self.signer.sign(&signed)?;
        let rrsig = RData::DNSSEC(DNSSECRData::RRSIG(RRSIG::from_sig(input, signature)));
        Ok(Record::from_rdata(name.clone(), records[0].ttl, rrsig))
    }

    pub(super) fn exists(&self, name: &Name) -> bool {
        self.names.contains(name)
    }

    /// Returns the records of a name and type with their signature. Their owner is set to `asked`,
    /// the name of the question, since a wildcard answers for many names.
    pub(super) fn set(&self, name: &Name, kind: RecordType, asked: &Name) -> Option<Vec<Record>> {
        let key = (name.clone(), kind);
        let set = self.sets.get(&key)?.iter().chain(self.signatures.get(&key));
        let named = |mut record: Record| {
            record.name = asked.clone();
            record
        };
        Some(set.cloned().map(named).collect())
    }

    /// Returns the NSEC record of a name, or the one that covers it.
    pub(super) fn nsec(&self, name: &Name) -> Vec<Record> {
        let owners = self
            .sets
            .keys()
            .filter(|(_, kind)| *kind == RecordType::NSEC)
            .map(|(owner, _)| owner);
        let owner = owners.filter(|owner| *owner <= name).max();
        owner
            .and_then(|owner| self.set(owner, RecordType::NSEC, owner))
            .unwrap_or_default()
    }
}

fn digest(origin: &Name, key: &DNSKEY) -> Result<DS, ZoneError> {
    let digest = key.to_digest(origin, DigestType::SHA256)?;
    let tag = key.calculate_key_tag()?;
    Ok(DS::new(
        tag,
        Algorithm::ECDSAP256SHA256,
        DigestType::SHA256,
        digest.as_ref().to_vec(),
    ))
}
