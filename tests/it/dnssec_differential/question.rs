//! The questions: every name and type of every zone, and some that do not exist.

use std::fmt;

use super::wire::{Name, kind, name};

/// A kind of lookup that Gatepost makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Mx,
    Addresses,
    Txt,
    Tlsa(u16),
}

/// A lookup.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Question {
    /// The host, where TLSA records are looked up.
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Mx => write!(f, "{} MX", self.name),
            Kind::Addresses => write!(f, "{} A, AAAA", self.name),
            Kind::Txt => write!(f, "{} TXT", self.name),
            Kind::Tlsa(port) => write!(f, "_{port}._tcp.{} TLSA", self.name),
        }
    }
}

impl Question {
    /// The questions as they go over the wire.
    pub(crate) fn wire(&self) -> Vec<(Name, u16)> {
        match self.kind {
            Kind::Mx => vec![(name(&self.name), kind::MX)],
            Kind::Addresses => vec![(name(&self.name), kind::AAAA), (name(&self.name), kind::A)],
            Kind::Txt => vec![(name(&self.name), kind::TXT)],
            Kind::Tlsa(port) => vec![(name(&format!("_{port}._tcp.{}", self.name)), kind::TLSA)],
        }
    }
}

const M: Kind = Kind::Mx;
const A: Kind = Kind::Addresses;
const T: Kind = Kind::Txt;
const S: Kind = Kind::Tlsa(25);

/// Of each zone: labels below its origin, and what is looked up there.
const NAMES: [(&str, &[Kind]); 33] = [
    ("", &[M, A, T, S]),
    ("mx", &[A, M, S, Kind::Tlsa(443), Kind::Tlsa(26)]),
    ("four", &[A, S]),
    ("zz", &[A, S]),
    ("alias", &[A, M, S]),
    ("alias-four", &[A]),
    ("alias-nowhere", &[A, M]),
    ("to-nsec", &[A]),
    ("to-nsec3", &[A, T]),
    ("to-plain", &[A, M]),
    ("to-bogus", &[A]),
    ("any.wild", &[A, M, S]),
    ("there.wild", &[A, M]),
    ("below.there.wild", &[A]),
    ("any.deep.wild", &[A, M]),
    ("wild", &[A]),
    ("any.wilder", &[A, M]),
    ("star", &[A, S]),
    ("very.deep.below", &[A, S]),
    ("deep.below", &[A]),
    ("below", &[T]),
    ("moved", &[A]),
    ("mx.moved", &[A, S]),
    ("nowhere.moved", &[A]),
    ("to-moved", &[A]),
    ("_mta-sts", &[T]),
    ("nowhere", &[A, M, S]),
    ("no.where.at.all", &[A]),
    ("zzz", &[A]),
    ("0", &[M]),
    ("plain", &[A, M]),
    ("mx.nowhere-at-all", &[S]),
    ("_smtp._tls", &[T]),
];

/// All questions about these zones.
pub(crate) fn all(zones: &[String]) -> Vec<Question> {
    let mut questions = Vec::new();
    for zone in zones
        .iter()
        .map(|zone| zone.strip_suffix('.').unwrap_or(zone))
        .filter(|zone| !zone.is_empty())
    {
        for (label, kinds) in NAMES {
            let name = if label.is_empty() {
                zone.to_owned()
            } else {
                format!("{label}.{zone}")
            };
            questions.extend(kinds.iter().map(|kind| Question {
                name: name.clone(),
                kind: *kind,
            }));
        }
    }
    questions
}
