//! DNS messages as octets and back (RFC 1035 §4), with a codec of its own: a fault of the library
//! under test must not hide itself.

use std::fmt::Write as _;

/// A name as it goes over the wire, uncompressed: `\x02mx\x04test\x00`.
pub(crate) type Name = Vec<u8>;

/// Record types, by number.
pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const HINFO: u16 = 13;
    pub(crate) const MX: u16 = 15;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const DNAME: u16 = 39;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const DS: u16 = 43;
    pub(crate) const RRSIG: u16 = 46;
    pub(crate) const NSEC: u16 = 47;
    pub(crate) const DNSKEY: u16 = 48;
    pub(crate) const NSEC3: u16 = 50;
    pub(crate) const TLSA: u16 = 52;
}

/// The class of all that is genuine.
pub(crate) const IN: u16 = 1;

/// Response codes.
pub(crate) mod code {
    pub(crate) const NOERROR: u16 = 0;
    pub(crate) const SERVFAIL: u16 = 2;
    pub(crate) const NXDOMAIN: u16 = 3;
    pub(crate) const REFUSED: u16 = 5;
}

/// Bits of a header.
pub(crate) mod flag {
    pub(crate) const QR: u16 = 1 << 15;
    pub(crate) const AA: u16 = 1 << 10;
    pub(crate) const TC: u16 = 1 << 9;
    pub(crate) const RD: u16 = 1 << 8;
    pub(crate) const RA: u16 = 1 << 7;
    pub(crate) const AD: u16 = 1 << 5;
    pub(crate) const CD: u16 = 1 << 4;
}

/// One record; names in its data are not compressed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    pub(crate) owner: Name,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) data: Vec<u8>,
}

impl Record {
    pub(crate) fn new(owner: &[u8], kind: u16, data: Vec<u8>) -> Self {
        Self {
            owner: owner.to_vec(),
            kind,
            class: IN,
            ttl: 3600,
            data,
        }
    }

    /// The type of the RRset that the record belongs to or signs.
    pub(crate) fn set(&self) -> u16 {
        match (self.kind, self.data.get(..2)) {
            (kind::RRSIG, Some(covered)) => u16::from_be_bytes([covered[0], covered[1]]),
            _ => self.kind,
        }
    }
}

/// A message without its additional section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) name: Name,
    pub(crate) kind: u16,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
    /// The DO bit.
    pub(crate) dnssec: bool,
    /// The largest datagram that the sender takes.
    pub(crate) payload: u16,
}

impl Message {
    pub(crate) fn query(id: u16, name: &[u8], kind: u16) -> Self {
        Self {
            id,
            flags: flag::CD,
            name: name.to_vec(),
            kind,
            dnssec: true,
            payload: 4096,
            ..Self::default()
        }
    }

    pub(crate) fn code(&self) -> u16 {
        self.flags & 15
    }

    pub(crate) fn set_code(&mut self, code: u16) {
        self.flags = self.flags & !15 | code;
    }

    pub(crate) fn parse(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader { octets, at: 0 };
        let mut message = Self {
            id: reader.u16()?,
            flags: reader.u16()?,
            payload: 512,
            ..Self::default()
        };
        let counts = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
        for _ in 0..counts[0] {
            message.name = lower(&reader.name()?);
            message.kind = reader.u16()?;
            reader.u16()?;
        }
        for (section, count) in counts.into_iter().enumerate().skip(1) {
            for _ in 0..count {
                let record = reader.record()?;
                match section {
                    1 => message.answers.push(record),
                    2 => message.authorities.push(record),
                    _ if record.kind == kind::OPT => {
                        message.dnssec = record.ttl & 0x8000 != 0;
                        message.payload = record.class.max(512);
                    }
                    _ => {}
                }
            }
        }
        Some(message)
    }

    pub(crate) fn octets(&self) -> Vec<u8> {
        let count = |records: &[Record]| u16::try_from(records.len()).unwrap_or(u16::MAX);
        let mut out = Vec::with_capacity(512);
        for word in [
            self.id,
            self.flags,
            1,
            count(&self.answers),
            count(&self.authorities),
            1,
        ] {
            out.extend(word.to_be_bytes());
        }
        out.extend(&self.name);
        out.extend(self.kind.to_be_bytes());
        out.extend(IN.to_be_bytes());
        for record in self.answers.iter().chain(&self.authorities) {
            write(&mut out, record);
        }
        let (class, ttl) = (4096, if self.dnssec { 0x8000 } else { 0 });
        write(
            &mut out,
            &Record {
                owner: vec![0],
                kind: kind::OPT,
                class,
                ttl,
                data: Vec::new(),
            },
        );
        out
    }

    /// The message in a few short lines, for whoever looks at a conversation that went wrong.
    pub(crate) fn in_words(&self) -> String {
        let mut out = format!(
            "{} {}: code {}, flags {:04x}\n",
            text(&self.name),
            self.kind,
            self.code(),
            self.flags
        );
        for (section, records) in [("answer", &self.answers), ("authority", &self.authorities)] {
            for record in records {
                let _ = writeln!(out, "    {section:9} {}", record.in_words());
            }
        }
        out
    }
}

impl Record {
    fn in_words(&self) -> String {
        let mut out = format!(
            "{} {} class {} type {} ",
            text(&self.owner),
            self.ttl,
            self.class,
            self.kind
        );
        let name_at = |at: usize| {
            self.data.get(at..).and_then(|rest| {
                Reader {
                    octets: rest,
                    at: 0,
                }
                .name()
            })
        };
        let _ = match self.kind {
            kind::RRSIG if self.data.len() > 18 => write!(
                out,
                "covers {} algorithm {} labels {} tag {} signer {}",
                self.set(),
                self.data[2],
                self.data[3],
                u16::from_be_bytes([self.data[16], self.data[17]]),
                name_at(18).map_or_else(String::new, |name| text(&name))
            ),
            kind::CNAME | kind::DNAME | kind::NSEC | kind::NS => {
                write!(
                    out,
                    "{}",
                    name_at(0).map_or_else(String::new, |name| text(&name))
                )
            }
            _ => write!(out, "{}", hex(&self.data[..self.data.len().min(24)])),
        };
        out
    }
}

fn write(out: &mut Vec<u8>, record: &Record) {
    out.extend(&record.owner);
    out.extend(record.kind.to_be_bytes());
    out.extend(record.class.to_be_bytes());
    out.extend(record.ttl.to_be_bytes());
    out.extend(u16::try_from(record.data.len()).unwrap_or(0).to_be_bytes());
    out.extend(&record.data);
}

struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let taken = self.octets.get(self.at..self.at + count)?;
        self.at += count;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)
            .map(|octets| u16::from_be_bytes([octets[0], octets[1]]))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    fn name(&mut self) -> Option<Name> {
        let (mut name, mut at, mut end) = (Vec::new(), self.at, None);
        for _ in 0..200 {
            let length = usize::from(*self.octets.get(at)?);
            if length >= 0xc0 {
                end.get_or_insert(at + 2);
                at = (length & 0x3f) << 8 | usize::from(*self.octets.get(at + 1)?);
                continue;
            }
            name.extend(self.octets.get(at..=at + length)?);
            at += length + 1;
            if length == 0 {
                self.at = end.unwrap_or(at);
                return Some(name);
            }
        }
        None
    }

    fn record(&mut self) -> Option<Record> {
        let (owner, kind, class, ttl) = (self.name()?, self.u16()?, self.u16()?, self.u32()?);
        let end = usize::from(self.u16()?) + self.at;
        // Only the data of the types of RFC 1035 may be compressed (RFC 3597 §4).
        let mut data = Vec::new();
        match kind {
            kind::NS | kind::CNAME => data.extend(self.name()?),
            kind::MX => {
                data.extend(self.take(2)?);
                data.extend(self.name()?);
            }
            kind::SOA => {
                data.extend(self.name()?);
                data.extend(self.name()?);
            }
            _ => {}
        }
        data.extend(self.take(end.checked_sub(self.at)?)?);
        Some(Record {
            owner,
            kind,
            class,
            ttl,
            data,
        })
    }
}

/// `mx.good.test` or `mx.good.test.` as a name.
pub(crate) fn name(text: &str) -> Name {
    let mut name = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        name.push(u8::try_from(label.len()).expect("a label"));
        name.extend(label.to_ascii_lowercase().bytes());
    }
    name.push(0);
    name
}

pub(crate) fn labels(name: &[u8]) -> Vec<&[u8]> {
    let (mut labels, mut at) = (Vec::new(), 0);
    while let Some(&length) = name.get(at).filter(|length| **length > 0) {
        let Some(label) = name.get(at + 1..=at + usize::from(length)) else {
            break;
        };
        labels.push(label);
        at += usize::from(length) + 1;
    }
    labels
}

/// Returns true if octets are a name: data that was changed need not be one.
pub(crate) fn is_name(octets: &[u8]) -> bool {
    labels(octets)
        .iter()
        .map(|label| label.len() + 1)
        .sum::<usize>()
        + 1
        == octets.len()
        && octets.len() < 256
}

pub(crate) fn text(name: &[u8]) -> String {
    let mut text = String::new();
    for label in labels(name) {
        text.push_str(&String::from_utf8_lossy(label));
        text.push('.');
    }
    if text.is_empty() {
        ".".to_owned()
    } else {
        text
    }
}

pub(crate) fn lower(name: &[u8]) -> Name {
    // The length of a label is below 64 and no letter.
    name.to_ascii_lowercase()
}

/// The name without its first label; the root's parent is the root.
pub(crate) fn parent(name: &[u8]) -> Name {
    name.get(usize::from(name[0]) + 1..)
        .filter(|rest| !rest.is_empty())
        .unwrap_or(&[0])
        .to_vec()
}

pub(crate) fn child(label: &str, name: &[u8]) -> Name {
    let mut child = vec![u8::try_from(label.len()).expect("a label")];
    child.extend(label.bytes());
    child.extend(name);
    child
}

/// Returns true if `name` is `zone` or below it.
pub(crate) fn is_in(name: &[u8], zone: &[u8]) -> bool {
    let (name, zone) = (labels(name), labels(zone));
    name.ends_with(&zone)
}

/// The order of names in a zone (RFC 4034 §6.1).
pub(crate) fn canonical(one: &[u8], other: &[u8]) -> std::cmp::Ordering {
    let (one, other) = (lower(one), lower(other));
    labels(&one)
        .into_iter()
        .rev()
        .cmp(labels(&other).into_iter().rev())
}

pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut out, octet| {
        let _ = write!(out, "{octet:02x}");
        out
    })
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .filter_map(|digit| digit.try_into().ok())
        .collect();
    digits
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[high, low]| high << 4 | low)
        .collect()
}
