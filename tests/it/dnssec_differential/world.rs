//! The genuine zones, as BIND answers about them, and all that an attacker can replay of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::attacker::Attacker;
use super::wire::{Message, Name, Record, flag, is_in, kind, name};

/// An RRset with its signatures.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub(crate) records: Vec<Record>,
    pub(crate) signatures: Vec<Record>,
}

impl Set {
    pub(crate) fn owner(&self) -> &Name {
        &self.records[0].owner
    }

    pub(crate) fn kind(&self) -> u16 {
        self.records[0].kind
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Record> {
        self.records.iter().chain(&self.signatures).cloned()
    }
}

/// Genuine answers and RRsets of one zone.
#[derive(Debug, Default)]
pub(crate) struct Loot {
    pub(crate) messages: Vec<Arc<Message>>,
    pub(crate) sets: Vec<Set>,
}

/// The zones, their name server, and what it has answered so far.
pub(crate) struct World {
    /// The origins of all zones.
    pub(crate) zones: Vec<Name>,
    pub(crate) attacker: Attacker,
    pub(crate) loot: BTreeMap<Name, Loot>,
    authority: SocketAddr,
    connection: tokio::sync::Mutex<Option<TcpStream>>,
    known: Mutex<HashMap<(Name, u16), Arc<Message>>>,
}

impl World {
    /// Reads what `.ci/dnssec` has set up, and asks for everything once.
    pub(crate) async fn load(questions: &[(Name, u16)]) -> Self {
        let variable = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run .ci/dnssec"))
        };
        let folder = PathBuf::from(variable("DNSSEC_ZONES"));
        let mut world = Self {
            zones: zones(&folder).iter().map(|zone| name(zone)).collect(),
            attacker: Attacker::read(&folder, "evil.test."),
            loot: BTreeMap::new(),
            authority: variable("DNSSEC_AUTHORITY").parse().expect("an address"),
            connection: tokio::sync::Mutex::default(),
            known: Mutex::default(),
        };
        world.loot = world.gather(questions).await;
        world
    }

    /// The zone that has a name.
    pub(crate) fn zone_of(&self, name: &[u8]) -> &Name {
        let above = self.zones.iter().filter(|zone| is_in(name, zone));
        above
            .max_by_key(|zone| zone.len())
            .expect("the root is a zone")
    }

    /// The genuine answer; of an alias, the alias alone.
    pub(crate) async fn genuine(&self, name: &[u8], kind: u16) -> Arc<Message> {
        let message = self.whole(name, kind).await;
        let is_alias = message
            .answers
            .iter()
            .any(|record| record.kind == kind::CNAME && record.owner == name);
        if kind == kind::CNAME || !is_alias {
            return message;
        }
        let alias = self.whole(name, kind::CNAME).await;
        Arc::new(Message {
            kind,
            ..Message::clone(&alias)
        })
    }

    /// The genuine answer, aliases within a zone followed.
    async fn whole(&self, name: &[u8], kind: u16) -> Arc<Message> {
        let key = (name.to_vec(), kind);
        if let Some(known) = self.known.lock().expect("no panic").get(&key) {
            return Arc::clone(known);
        }
        let octets = self.exchange(&Message::query(1, name, kind).octets()).await;
        let mut message = Message::parse(&octets).expect("BIND answers with DNS messages");
        message.flags |= flag::RA | flag::RD;
        message.flags &= !(flag::AA | flag::CD);
        message.answers = in_order(&message.answers);
        message.authorities = in_order(&message.authorities);
        let message = Arc::new(message);
        self.known
            .lock()
            .expect("no panic")
            .insert(key, Arc::clone(&message));
        message
    }

    async fn exchange(&self, question: &[u8]) -> Vec<u8> {
        let mut connection = self.connection.lock().await;
        for _ in 0..3 {
            if let Some(stream) = connection.as_mut()
                && let Ok(Ok(answer)) =
                    tokio::time::timeout(Duration::from_secs(5), ask(stream, question)).await
            {
                return answer;
            }
            *connection = TcpStream::connect(self.authority).await.ok();
        }
        panic!("BIND does not answer");
    }

    /// Everything that there is, by the zone that says it.
    async fn gather(&self, questions: &[(Name, u16)]) -> BTreeMap<Name, Loot> {
        let mut all: BTreeSet<(Name, u16)> = questions.iter().cloned().collect();
        for zone in &self.zones {
            let kinds = [kind::DS, kind::DNSKEY, kind::SOA, kind::NS, kind::HINFO, 51];
            all.extend(kinds.map(|kind| (zone.clone(), kind)));
        }
        for (name, _) in questions {
            all.extend([kind::HINFO, kind::DS, kind::CNAME].map(|kind| (name.clone(), kind)));
        }
        let mut loot: BTreeMap<Name, Loot> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (name, kind) in all {
            let message = self.genuine(&name, kind).await;
            for set in sets(&message.answers)
                .into_iter()
                .chain(sets(&message.authorities))
            {
                if seen.insert((set.records.clone(), set.signatures.clone())) {
                    let zone = self.said_by(&set);
                    loot.entry(zone).or_default().sets.push(set);
                }
            }
            let zone = self.zone_of(&name).clone();
            loot.entry(zone).or_default().messages.push(message);
        }
        loot
    }

    /// The zone that signed an RRset, or else that has its name.
    fn said_by(&self, set: &Set) -> Name {
        match set
            .signatures
            .first()
            .map(|signature| crate::dnssec_differential::wire::lower(&signature.data[18..]))
        {
            Some(signed) => self
                .zones
                .iter()
                .filter(|zone| signed.starts_with(zone))
                .max_by_key(|zone| zone.len())
                .cloned(),
            None => None,
        }
        .unwrap_or_else(|| self.zone_of(set.owner()).clone())
    }
}

/// The origins of all zones that are served, in a fixed order.
pub(crate) fn zones(folder: &std::path::Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).expect("the folder of the zones");
    let mut zones: Vec<String> = files
        .filter_map(|file| {
            file.ok()?
                .file_name()
                .into_string()
                .ok()?
                .strip_suffix("zone.signed")
                .map(str::to_owned)
        })
        .map(|zone| {
            if zone == "root." {
                ".".to_owned()
            } else {
                zone
            }
        })
        .collect();
    zones.sort();
    zones
}

async fn ask(stream: &mut TcpStream, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let length = u16::try_from(question.len()).expect("a short question");
    stream
        .write_all(&[&length.to_be_bytes(), question].concat())
        .await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The RRsets of a section, in the order in which they begin.
pub(crate) fn sets(section: &[Record]) -> Vec<Set> {
    let mut sets: Vec<Set> = Vec::new();
    for record in section.iter().filter(|record| record.kind != kind::RRSIG) {
        match sets
            .iter_mut()
            .find(|set| *set.owner() == record.owner && set.kind() == record.kind)
        {
            Some(set) => set.records.push(record.clone()),
            None => sets.push(Set {
                records: vec![record.clone()],
                signatures: Vec::new(),
            }),
        }
    }
    for signature in section.iter().filter(|record| record.kind == kind::RRSIG) {
        let signed = sets
            .iter_mut()
            .find(|set| *set.owner() == signature.owner && set.kind() == signature.set());
        if let Some(set) = signed {
            set.signatures.push(signature.clone());
        }
    }
    sets
}

/// The section as it would be if BIND did not shuffle the records of an RRset.
fn in_order(section: &[Record]) -> Vec<Record> {
    let mut sets = sets(section);
    for set in &mut sets {
        set.records.sort();
        set.signatures.sort();
    }
    sets.iter().flat_map(Set::all).collect()
}
