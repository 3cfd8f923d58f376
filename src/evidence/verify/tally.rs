//! The chain so far: what must come next, and what was wrong.

use std::path::{Path, PathBuf};

use super::{Beginning, FINDINGS_MAX, Finding, Found, Link, RecordHash, Verified};

/// Where a line stands.
#[derive(Debug, Clone, Default)]
struct Spot {
    file: PathBuf,
    line: u64,
}

/// The foremost record so far.
#[derive(Debug)]
struct Foremost {
    link: Link,
    spot: Spot,
    /// Its hash is that of what it says: what is hung on it can be held against it.
    is_sound: bool,
}

/// Records that have not come yet, and where they should have.
#[derive(Debug)]
struct Gap {
    from: u64,
    to: u64,
    spot: Spot,
}

pub(super) struct Tally {
    spot: Spot,
    records: u64,
    first: Option<Link>,
    first_spot: Spot,
    /// Lines before the first record that are none.
    bad_before: u64,
    foremost: Option<Foremost>,
    gaps: Vec<Gap>,
    /// Lines since the foremost record that are none, as places among the findings.
    bad: Vec<usize>,
    is_explained: bool,
    /// Heads that were not met yet.
    heads: Vec<RecordHash>,
    /// A head that is the hash of the record before the first.
    head_before: Option<RecordHash>,
    findings: Vec<Finding>,
    more: u64,
}

impl Tally {
    pub(super) fn new(heads: &[RecordHash]) -> Self {
        Self {
            spot: Spot::default(),
            records: 0,
            first: None,
            first_spot: Spot::default(),
            bad_before: 0,
            foremost: None,
            gaps: Vec::new(),
            bad: Vec::new(),
            is_explained: false,
            heads: heads.to_vec(),
            head_before: None,
            findings: Vec::new(),
            more: 0,
        }
    }

    pub(super) fn at(&mut self, file: &Path, line: u64) {
        if self.spot.file != file {
            file.clone_into(&mut self.spot.file);
        }
        self.spot.line = line;
    }

    pub(super) fn find(&mut self, found: Found) {
        self.find_at(self.spot.clone(), found);
    }

    fn find_at(&mut self, spot: Spot, found: Found) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { file: spot.file, line: spot.line, found });
        } else {
            self.more += 1;
        }
    }

    pub(super) fn not_a_record(&mut self, why: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.bad.push(self.findings.len());
        }
        self.find(Found::NotARecord { seq: None, why });
    }

    /// A record whose hash is not that of what it says now. Where it stands in the chain is believed as far
    /// as its neighbours agree.
    pub(super) fn edited(&mut self, link: Link) {
        self.find(Found::Edited { seq: link.seq });
        let fits = self.foremost.as_ref().is_none_or(|foremost| link.seq == foremost.link.seq + 1);
        if fits {
            self.place(link, false);
        }
    }

    /// A record. `dropped`: it says that the chain goes on behind another that went.
    pub(super) fn record(&mut self, link: Link, dropped: Option<(u64, RecordHash)>) {
        self.records += 1;
        self.heads.retain(|head| *head != link.hash);
        if let (Some((seq, hash)), Some(first)) = (dropped, &self.first) {
            let begins = first.seq.saturating_sub(self.bad_before);
            // What stood in a destroyed line is not known.
            self.is_explained |= seq + 1 == begins && (hash == first.prev || self.bad_before > 0);
        }
        self.place(link, true);
    }

    fn place(&mut self, link: Link, is_sound: bool) {
        let Some(foremost) = &self.foremost else { return self.begin(link, is_sound) };
        let (before, seq) = (foremost.link.seq, link.seq);
        if seq <= before {
            return self.late(seq, before);
        }
        if seq == before + 1 && foremost.is_sound && link.prev != foremost.link.hash {
            let spot = foremost.spot.clone();
            self.find_at(spot, Found::Replaced { seq: before });
        }
        let from = self.name_bad(before + 1, seq);
        if from < seq {
            if self.gaps.len() < FINDINGS_MAX {
                self.gaps.push(Gap { from, to: seq - 1, spot: self.spot.clone() });
            } else {
                self.more += 1;
            }
        }
        self.foremost = Some(Foremost { link, spot: self.spot.clone(), is_sound });
    }

    fn begin(&mut self, link: Link, is_sound: bool) {
        self.bad_before = (self.bad.len() as u64).min(link.seq.saturating_sub(1));
        self.name_bad(link.seq - self.bad_before, link.seq);
        let begins = link.seq - self.bad_before;
        self.is_explained = begins == 1 && (self.bad_before > 0 || link.prev == RecordHash::NOTHING);
        // What was dropped last is known by its hash still. The first record of all hangs on no record.
        if link.prev != RecordHash::NOTHING && is_sound {
            self.head_before = self.heads.iter().copied().find(|head| *head == link.prev);
        }
        self.first = Some(link.clone());
        self.first_spot = self.spot.clone();
        self.foremost = Some(Foremost { link, spot: self.spot.clone(), is_sound });
    }

    /// Lines that are no records stand for those that are missing, from `from` on and before `to`; gives the
    /// first that none stands for.
    fn name_bad(&mut self, from: u64, to: u64) -> u64 {
        let mut next = from;
        for at in std::mem::take(&mut self.bad) {
            if next >= to {
                break;
            }
            if let Some(Finding { found: Found::NotARecord { seq, .. }, .. }) = self.findings.get_mut(at) {
                *seq = Some(next);
                next += 1;
            }
        }
        next
    }

    /// A record with a number that has been passed.
    fn late(&mut self, seq: u64, behind: u64) {
        let Some(at) = self.gaps.iter().position(|gap| (gap.from..=gap.to).contains(&seq)) else {
            return self.find(Found::Repeated { seq });
        };
        let gap = self.gaps.remove(at);
        if seq < gap.to {
            self.gaps.insert(at, Gap { from: seq + 1, to: gap.to, spot: gap.spot.clone() });
        }
        if gap.from < seq {
            self.gaps.insert(at, Gap { from: gap.from, to: seq - 1, spot: gap.spot });
        }
        self.find(Found::Misplaced { seq, behind });
    }

    pub(super) fn end(mut self) -> Verified {
        for Gap { from, to, spot } in std::mem::take(&mut self.gaps) {
            self.find_at(spot, Found::Missing { from, to });
        }
        let begins = self.first.as_ref().map(|first| first.seq.saturating_sub(self.bad_before));
        let beginning = match begins {
            None => Beginning::Nothing,
            Some(1) if self.is_explained => Beginning::First,
            Some(begins) if self.is_explained => Beginning::Kept { dropped: begins - 1 },
            Some(begins) => {
                let found = Found::NoBeginning { to: begins.saturating_sub(1) };
                self.find_at(self.first_spot.clone(), found);
                Beginning::Unexplained
            }
        };
        // Only where a record says that those before the first were dropped, the last of them was in the chain.
        let dropped_head = self.head_before.filter(|_| beginning != Beginning::Unexplained);
        self.heads.retain(|head| Some(*head) != dropped_head);
        self.findings.sort_by(|one, other| (&one.file, one.line).cmp(&(&other.file, other.line)));
        for head in std::mem::take(&mut self.heads) {
            self.find(Found::HeadMissing(head));
        }
        Verified {
            files: 0,
            records: self.records,
            first: self.first,
            last: self.foremost.map(|foremost| foremost.link),
            beginning,
            findings: self.findings,
            more: self.more,
            is_growing: false,
            dropped_head,
        }
    }
}
