//! The state of a verification: the next expected record, and the defects so far.

use std::path::{Path, PathBuf};

use super::super::chain::{LineFault, Link, RecordHash};
use super::findings::{ChainStart, Defect, FINDINGS_MAX, Finding, Verification};

/// The place of a line.
#[derive(Debug, Clone, Default)]
struct LinePosition {
    file: PathBuf,
    line: u64,
}

/// The record with the highest number so far.
#[derive(Debug)]
struct LastRecord {
    link: Link,
    position: LinePosition,
    /// True if its hash matches its text, so that the next record can be compared with it.
    is_sound: bool,
}

/// Records that are missing so far, and the place where they should be.
#[derive(Debug)]
struct Gap {
    from: u64,
    to: u64,
    position: LinePosition,
}

/// The removal of the records up to one, as a later record says.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordedRemoval {
    pub(super) last_seq: u64,
    pub(super) last_hash: RecordHash,
    /// True if they were archived, not deleted for their age.
    pub(super) is_archived: bool,
}

/// The explanation of the record with which a chain starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StartExplanation {
    /// It is the first of all, or a record says that those before it expired.
    Recorded,
    /// A record says that those before it were archived.
    Archived,
    Unexplained,
}

pub(super) struct ChainChecker {
    position: LinePosition,
    records: u64,
    first: Option<Link>,
    first_position: LinePosition,
    /// The number of bad lines before the first record.
    bad_before: u64,
    last: Option<LastRecord>,
    gaps: Vec<Gap>,
    /// The bad lines since the last record, as indexes of the findings.
    bad: Vec<usize>,
    start: StartExplanation,
    /// The explanation that no record has yet, since days are being removed.
    expected_start: StartExplanation,
    /// True if earlier files are not read.
    starts_later: bool,
    /// The expected heads that have not been found yet.
    heads: Vec<RecordHash>,
    /// The expected head that is the hash of the record before the first one.
    head_before: Option<RecordHash>,
    findings: Vec<Finding>,
    more: u64,
}

impl ChainChecker {
    pub(super) fn new(heads: &[RecordHash]) -> Self {
        Self {
            position: LinePosition::default(),
            records: 0,
            first: None,
            first_position: LinePosition::default(),
            bad_before: 0,
            last: None,
            gaps: Vec::new(),
            bad: Vec::new(),
            start: StartExplanation::Unexplained,
            expected_start: StartExplanation::Unexplained,
            starts_later: false,
            heads: heads.to_vec(),
            head_before: None,
            findings: Vec::new(),
            more: 0,
        }
    }

    /// Returns the state of a verification that does not read the first files.
    pub(super) fn from_later_record(heads: &[RecordHash]) -> Self {
        Self {
            starts_later: true,
            ..Self::new(heads)
        }
    }

    /// Allows that the chain starts with a later record, since days are being removed that were archived
    /// or have expired.
    pub(super) fn expect_later_start(&mut self, is_archived: bool) {
        self.expected_start = if is_archived {
            StartExplanation::Archived
        } else {
            StartExplanation::Recorded
        };
    }

    pub(super) fn set_position(&mut self, file: &Path, line: u64) {
        if self.position.file != file {
            file.clone_into(&mut self.position.file);
        }
        self.position.line = line;
    }

    pub(super) fn report(&mut self, found: Defect) {
        self.report_at(self.position.clone(), found);
    }

    fn report_at(&mut self, position: LinePosition, found: Defect) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding {
                file: position.file,
                line: position.line,
                found,
            });
        } else {
            self.more += 1;
        }
    }

    pub(super) fn add_bad_line(&mut self, why: LineFault) {
        if self.findings.len() < FINDINGS_MAX {
            self.bad.push(self.findings.len());
        }
        self.report(Defect::NotARecord { seq: None, why });
    }

    /// Adds a record whose hash does not match its text. Its number is accepted if it fits the
    /// record before.
    pub(super) fn add_edited(&mut self, link: Link) {
        self.report(Defect::Edited { seq: link.seq });
        let fits = self
            .last
            .as_ref()
            .is_none_or(|last| link.seq == last.link.seq + 1);
        if fits {
            self.add(link, false);
        }
    }

    /// Adds a valid record. `removed` is set if it says that earlier records were removed.
    pub(super) fn add_record(&mut self, link: Link, removed: Option<RecordedRemoval>) {
        self.records += 1;
        self.heads.retain(|head| *head != link.hash);
        self.add(link, true);
        // The record may be the first one itself.
        if let (Some(removed), Some(first)) = (removed, &self.first) {
            let begins = first.seq.saturating_sub(self.bad_before);
            // The link in a bad line is unknown.
            let is_linked = removed.last_hash == first.prev || self.bad_before > 0;
            if removed.last_seq.checked_add(1) == Some(begins) && is_linked {
                self.start = if removed.is_archived {
                    StartExplanation::Archived
                } else {
                    StartExplanation::Recorded
                };
            }
        }
    }

    fn add(&mut self, link: Link, is_sound: bool) {
        let Some(last) = &self.last else {
            return self.start(link, is_sound);
        };
        let (before, seq) = (last.link.seq, link.seq);
        if seq <= before {
            return self.add_passed(seq, before);
        }
        if seq == before + 1 && last.is_sound && link.prev != last.link.hash {
            let position = last.position.clone();
            self.report_at(position, Defect::Replaced { seq: before });
        }
        let from = self.assign_bad_lines(before + 1, seq);
        if from < seq {
            if self.gaps.len() < FINDINGS_MAX {
                self.gaps.push(Gap {
                    from,
                    to: seq - 1,
                    position: self.position.clone(),
                });
            } else {
                self.more += 1;
            }
        }
        self.last = Some(LastRecord {
            link,
            position: self.position.clone(),
            is_sound,
        });
    }

    fn start(&mut self, link: Link, is_sound: bool) {
        self.bad_before = (self.bad.len() as u64).min(link.seq.saturating_sub(1));
        self.assign_bad_lines(link.seq - self.bad_before, link.seq);
        let begins = link.seq - self.bad_before;
        let is_first = begins == 1 && (self.bad_before > 0 || link.prev == RecordHash::ZERO);
        self.start = if is_first {
            StartExplanation::Recorded
        } else {
            StartExplanation::Unexplained
        };
        // A deleted record is still known by its hash in the next one. The first record of all is
        // linked to none.
        if link.prev != RecordHash::ZERO && is_sound {
            self.head_before = self.heads.iter().copied().find(|head| *head == link.prev);
        }
        self.first = Some(link.clone());
        self.first_position = self.position.clone();
        self.last = Some(LastRecord {
            link,
            position: self.position.clone(),
            is_sound,
        });
    }

    /// Assigns the missing numbers from `from` up to `to` to the bad lines. Returns the first
    /// number that has no line.
    fn assign_bad_lines(&mut self, from: u64, to: u64) -> u64 {
        let mut next = from;
        for at in std::mem::take(&mut self.bad) {
            if next >= to {
                break;
            }
            if let Some(Finding {
                found: Defect::NotARecord { seq, .. },
                ..
            }) = self.findings.get_mut(at)
            {
                *seq = Some(next);
                next += 1;
            }
        }
        next
    }

    /// Adds a record whose number has been passed.
    fn add_passed(&mut self, seq: u64, behind: u64) {
        let Some(at) = self
            .gaps
            .iter()
            .position(|gap| (gap.from..=gap.to).contains(&seq))
        else {
            return self.report(Defect::Repeated { seq });
        };
        let gap = self.gaps.remove(at);
        if seq < gap.to {
            self.gaps.insert(
                at,
                Gap {
                    from: seq + 1,
                    to: gap.to,
                    position: gap.position.clone(),
                },
            );
        }
        if gap.from < seq {
            self.gaps.insert(
                at,
                Gap {
                    from: gap.from,
                    to: seq - 1,
                    position: gap.position,
                },
            );
        }
        self.report(Defect::Misplaced { seq, behind });
    }

    /// Returns whether the records before the first one are gone for this reason, or are being removed
    /// for it.
    fn has_start(&self, reason: StartExplanation) -> bool {
        self.start == reason
            || self.start == StartExplanation::Unexplained && self.expected_start == reason
    }

    pub(super) fn finish(mut self) -> Verification {
        for Gap { from, to, position } in std::mem::take(&mut self.gaps) {
            self.report_at(position, Defect::Missing { from, to });
        }
        let begins = self
            .first
            .as_ref()
            .map(|first| first.seq.saturating_sub(self.bad_before));
        let beginning = match begins {
            None => ChainStart::Empty,
            Some(_) if self.starts_later => ChainStart::NotRead,
            Some(1) if self.start == StartExplanation::Recorded => ChainStart::First,
            Some(begins) if begins > 1 && self.has_start(StartExplanation::Recorded) => {
                ChainStart::Expired {
                    dropped: begins - 1,
                }
            }
            Some(begins) if begins > 1 && self.has_start(StartExplanation::Archived) => {
                ChainStart::Archived {
                    archived: begins - 1,
                }
            }
            Some(begins) => {
                let found = Defect::NoBeginning {
                    to: begins.saturating_sub(1),
                };
                self.report_at(self.first_position.clone(), found);
                ChainStart::Unexplained
            }
        };
        // The head was in the chain only if a record confirms the deletion of the records before
        // the first.
        let dropped_head = self
            .head_before
            .filter(|_| beginning != ChainStart::Unexplained);
        self.heads.retain(|head| Some(*head) != dropped_head);
        self.findings
            .sort_by(|one, other| (&one.file, one.line).cmp(&(&other.file, other.line)));
        for head in std::mem::take(&mut self.heads) {
            self.report(Defect::HeadMissing(head));
        }
        Verification {
            files: 0,
            records: self.records,
            first: self.first,
            last: self.last.map(|last| last.link),
            beginning,
            findings: self.findings,
            more: self.more,
            is_growing: false,
            dropped_head,
        }
    }
}
