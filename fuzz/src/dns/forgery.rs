//! The changes to genuine replies, which the input lists.

use gatepost::demo::zones::full_name;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, Name, Record, RecordType};

use super::{WORLD, attacker, genuine};

/// The maximum number of changes in one input.
const CHANGES_MAX: usize = 24;
/// The maximum number of records in one section; replies have at most 64 KiB.
const RECORDS_MAX: usize = 300;

const NAMES: [&str; 16] = [
    ".",
    "test",
    "good.test",
    "mx.good.test",
    "alias.good.test",
    "_25._tcp.mx.good.test",
    "_mta-sts.good.test",
    "nobody.good.test",
    "any.wild.good.test",
    "four.wild.good.test",
    "wild.good.test",
    "zz.good.test",
    "plain.test",
    "mx.plain.test",
    "evil.test",
    "zz.evil.test",
];

const KINDS: [RecordType; 12] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::MX,
    RecordType::TXT,
    RecordType::TLSA,
    RecordType::CNAME,
    RecordType::DNAME,
    RecordType::DS,
    RecordType::DNSKEY,
    RecordType::NSEC,
    RecordType::NS,
    RecordType::SOA,
];

/// A change to replies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forgery {
    /// The questions whose replies are changed: one by its number, those of a type, or all.
    reply: u8,
    what: u8,
    /// The arguments of the change `what`.
    arguments: [u8; 6],
}

/// Reads changes, eight octets each.
pub(super) fn read(input: &[u8]) -> Vec<Forgery> {
    let (changes, _) = input.as_chunks::<8>();
    let read = |[reply, what, arguments @ ..]: &[u8; 8]| Forgery { reply: *reply, what: *what, arguments: *arguments };
    changes.iter().take(CHANGES_MAX).map(read).collect()
}

impl Forgery {
    fn concerns(&self, number: usize, kind: RecordType) -> bool {
        match self.reply {
            0xff => true,
            reply @ 0xc0.. => KINDS[usize::from(reply) % KINDS.len()] == kind,
            reply => usize::from(reply) % 32 == number,
        }
    }

    fn change(&self, reply: &mut Message, name: &Name, kind: RecordType) {
        let [one, two, three, ..] = self.arguments;
        let section = |reply: &mut Message, which: u8| -> Vec<Record> {
            std::mem::take(if which & 1 == 0 { &mut reply.answers } else { &mut reply.authorities })
        };
        let other_name = || full_name(NAMES[usize::from(two) % NAMES.len()]).expect("a name");
        let other_kind = KINDS[usize::from(three) % KINDS.len()];
        match self.what % 16 {
            0 => become_of(reply, genuine(&WORLD.genuine, &other_name(), other_kind)),
            1 => become_of(reply, genuine(&WORLD.forged, name, kind)),
            2 => become_of(reply, genuine(&WORLD.forged, &other_name(), other_kind)),
            3 => {
                let zones = if one & 4 == 0 { &WORLD.genuine } else { &WORLD.forged };
                let other = genuine(zones, &other_name(), other_kind);
                let records = if one & 2 == 0 { other.answers } else { other.authorities };
                let mut all = section(reply, one);
                let place = if one & 8 == 0 { 0 } else { all.len() };
                all.splice(place..place, records);
                put(reply, one, all);
            }
            4 => {
                let mut all = section(reply, one);
                all.extend(section(reply, one ^ 1));
                put(reply, one, all);
            }
            what @ 5..=9 => {
                let mut all = section(reply, one);
                if !all.is_empty() {
                    let at = usize::from(two) % all.len();
                    self.change_record(what, at, &mut all);
                }
                put(reply, one, all);
            }
            10 => {
                let codes =
                    [ResponseCode::NoError, ResponseCode::NXDomain, ResponseCode::ServFail, ResponseCode::Refused];
                reply.metadata.response_code = codes[usize::from(one & 3)];
                reply.metadata.truncation = one & 4 != 0;
                reply.metadata.authentic_data = one & 8 != 0;
            }
            11 => {}
            _ => {
                let [place, arguments @ ..] = self.arguments;
                let mut all = section(reply, place);
                let at = if place & 2 == 0 { 0 } else { all.len() };
                all.splice(at..at, attacker::record(arguments));
                put(reply, place, all);
            }
        }
    }

    fn change_record(&self, what: u8, at: usize, all: &mut Vec<Record>) {
        let three = self.arguments[2];
        match what {
            5 => {
                all.remove(at);
            }
            6 => {
                let copies = vec![all[at].clone(); usize::from(three & 63)];
                all.splice(at..at, copies);
            }
            7 => all[at].name = full_name(NAMES[usize::from(three) % NAMES.len()]).expect("a name"),
            8 => all[at].ttl = u32::from(three) << (three % 24),
            _ if three & 1 == 0 => all[at].dns_class = DNSClass::CH,
            _ => {
                let last = all.len() - 1;
                all.swap(at, last);
            }
        }
    }

    /// Changes the octets of the encoded reply.
    fn change_octets(&self, octets: &mut Vec<u8>) {
        let [one, two, three, ..] = self.arguments;
        let at = usize::from(u16::from_be_bytes([one, two])) % octets.len().max(1);
        match (self.what % 16, self.what & 0x80) {
            (11, 0) => {
                if let Some(octet) = octets.get_mut(at) {
                    *octet ^= three;
                }
            }
            (11, _) if three == 0 => octets.truncate(at),
            (11, _) => octets.insert(at, three),
            _ => {}
        }
    }
}

fn become_of(reply: &mut Message, other: Message) {
    reply.answers = other.answers;
    reply.authorities = other.authorities;
    reply.metadata.response_code = other.metadata.response_code;
}

fn put(reply: &mut Message, which: u8, mut records: Vec<Record>) {
    records.truncate(RECORDS_MAX);
    *(if which & 1 == 0 { &mut reply.answers } else { &mut reply.authorities }) = records;
}

/// Returns the encoded reply to a question, after all changes.
pub(super) fn reply(forgeries: &[Forgery], number: usize, name: &Name, kind: RecordType) -> Vec<u8> {
    let mut reply = genuine(&WORLD.genuine, name, kind);
    let concerned = || forgeries.iter().filter(|forgery| forgery.concerns(number, kind));
    concerned().for_each(|forgery| forgery.change(&mut reply, name, kind));
    let mut octets = reply.to_vec().unwrap_or_default();
    concerned().for_each(|forgery| forgery.change_octets(&mut octets));
    octets
}
