//! Proofs by NSEC records (RFC 4035 §5.4, RFC 6840 §4).
//!
//! Every record here is signed, under its own name, by the zone that the query is about. A record
//! at a delegation or a DNAME proves nothing about names below it (RFC 6840 §4.1).

use hickory_resolver::proto::dnssec::rdata::NSEC;
use hickory_resolver::proto::rr::{Name, RecordType};

use super::proof::{CutProof, LeafProof, TypesAtOwner};

/// An NSEC record with its owner.
#[derive(Clone, Copy)]
pub(super) struct Nsec<'a> {
    pub(super) owner: &'a Name,
    pub(super) data: &'a NSEC,
}

/// The NSEC records of one zone in one answer.
pub(super) struct NsecProofs<'a> {
    pub(super) apex: &'a Name,
    pub(super) records: Vec<Nsec<'a>>,
}

impl NsecProofs<'_> {
    /// Proves that a name has neither records of a type nor an alias (RFC 4035 §5.4).
    pub(super) fn prove_leaf(&self, name: &Name, kind: RecordType) -> Option<LeafProof> {
        if let Some(exact) = self.at(name) {
            return exact.lacks(kind).then_some(LeafProof::NoDataByNsec);
        }
        let covering = self.covering(name)?;
        if name.zone_of(covering.next()) {
            // The name is an empty non-terminal: only names below it exist.
            return Some(LeafProof::NoDataByNsec);
        }
        let wildcard = covering.closest_encloser(name).prepend_label("*").ok()?;
        if let Some(exact) = self.at(&wildcard) {
            return exact.lacks(kind).then_some(LeafProof::NoDataByNsec);
        }
        let covering = self.covering(&wildcard)?;
        Some(if wildcard.zone_of(covering.next()) {
            LeafProof::NoDataByNsec
        } else {
            LeafProof::NoName
        })
    }

    /// Proves that no signed zone begins at a name (RFC 4035 §5.2, RFC 6840 §4.4). The records are
    /// those of the parent zone.
    pub(super) fn prove_cut(&self, name: &Name) -> Option<CutProof> {
        if let Some(exact) = self.records.iter().find(|record| record.owner == name) {
            return CutProof::of_types(|kind| exact.has(kind));
        }
        let covering = self.covering(name)?;
        Some(if name.zone_of(covering.next()) {
            CutProof::NoCut
        } else {
            CutProof::NoName
        })
    }

    /// Proves that a wildcard may stand for `owner`, since no closer name exists (RFC 4035 §5.3.4).
    /// The parent of the wildcard has `labels` labels.
    pub(super) fn prove_expansion(&self, owner: &Name, labels: u8) -> bool {
        let next_closer = owner.trim_to(usize::from(labels) + 1);
        self.covering(owner).is_some_and(|covering| {
            !next_closer.zone_of(covering.owner) && !next_closer.zone_of(covering.next())
        })
    }

    /// Returns the record at a name, unless it is the parent's record at a zone cut.
    fn at(&self, name: &Name) -> Option<Nsec<'_>> {
        self.records
            .iter()
            .copied()
            .find(|record| record.owner == name && !record.is_delegation())
    }

    /// Returns the record whose interval contains the name, which proves that the name has no
    /// records.
    fn covering(&self, name: &Name) -> Option<Nsec<'_>> {
        let covers = |record: &Nsec<'_>| {
            let next = record.next();
            self.apex.zone_of(name)
                && self.apex.zone_of(next)
                && record.owner < name
                && (name < next || next == self.apex)
                && !(record.owner.zone_of(name)
                    && (record.is_delegation() || record.has(RecordType::DNAME)))
        };
        self.records.iter().copied().find(covers)
    }
}

impl TypesAtOwner for Nsec<'_> {
    fn has(&self, kind: RecordType) -> bool {
        self.data.type_set().contains(kind)
    }
}

impl Nsec<'_> {
    fn next(&self) -> &Name {
        self.data.next_domain_name()
    }

    /// Returns the longest ancestor of a name that this record, which covers the name, proves to
    /// exist.
    fn closest_encloser(&self, name: &Name) -> Name {
        let common = |other: &Name| {
            name.iter()
                .rev()
                .zip(other.iter().rev())
                .take_while(|(one, two)| one.eq_ignore_ascii_case(two))
                .count()
        };
        name.trim_to(common(self.owner).max(common(self.next())))
    }
}

#[cfg(test)]
mod tests {
    use RecordType::{A, CNAME, DNAME, DS, MX, NS, SOA, TLSA};

    use super::*;

    type NsecRow<'t> = (&'t str, &'t str, &'t [RecordType]);

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    /// Returns the result of `ask` for NSEC records of `z.test.`, given as owner, next name and
    /// types.
    fn with<T>(rows: &[NsecRow<'_>], ask: impl FnOnce(&NsecProofs<'_>) -> T) -> T {
        let owned: Vec<(Name, NSEC)> = rows
            .iter()
            .map(|(owner, next, kinds)| (name(owner), NSEC::new(name(next), kinds.iter().copied())))
            .collect();
        let records = owned
            .iter()
            .map(|(owner, data)| Nsec { owner, data })
            .collect();
        ask(&NsecProofs {
            apex: &name("z.test."),
            records,
        })
    }

    #[test]
    fn a_leaf_is_denied_by_its_own_record_or_by_a_covering_one() {
        use LeafProof::{NoDataByNsec as NoData, NoName};
        let end: NsecRow<'_> = ("x.z.test.", "z.test.", &[A]);
        let wild: NsecRow<'_> = ("*.z.test.", "a.z.test.", &[A]);
        let apex: NsecRow<'_> = ("z.test.", "a.z.test.", &[NS, SOA]);
        for (rows, name_text, expected) in [
            (
                vec![("m.z.test.", "n.z.test.", [A].as_slice())],
                "m.z.test.",
                Some(NoData),
            ),
            (vec![("m.z.test.", "n.z.test.", &[TLSA])], "m.z.test.", None),
            (
                vec![("m.z.test.", "n.z.test.", &[CNAME])],
                "m.z.test.",
                None,
            ),
            // The parent's record at a zone cut, and a record that would deny names below a cut or
            // a DNAME.
            (vec![("m.z.test.", "n.z.test.", &[NS])], "m.z.test.", None),
            (
                vec![("m.z.test.", "n.z.test.", &[NS]), apex],
                "a.m.z.test.",
                None,
            ),
            (
                vec![("m.z.test.", "n.z.test.", &[A, DNAME]), apex],
                "a.m.z.test.",
                None,
            ),
            // An empty non-terminal.
            (
                vec![("l.z.test.", "a.m.z.test.", &[A])],
                "m.z.test.",
                Some(NoData),
            ),
            // The name does not exist: the wildcard that could stand for it is denied too, or has
            // no such record.
            (
                vec![("l.z.test.", "n.z.test.", &[A]), apex],
                "m.z.test.",
                Some(NoName),
            ),
            (vec![("l.z.test.", "n.z.test.", &[A])], "m.z.test.", None),
            (
                vec![("l.z.test.", "n.z.test.", &[A]), wild],
                "m.z.test.",
                Some(NoData),
            ),
            (
                vec![
                    ("l.z.test.", "n.z.test.", &[A]),
                    ("*.z.test.", "a.z.test.", &[TLSA]),
                ],
                "m.z.test.",
                None,
            ),
            (vec![end, apex], "y.z.test.", Some(NoName)),
            (vec![end, apex], "x.z.test.", Some(NoData)),
            (vec![end, apex], "b.z.test.", None),
            // Records deny names of their own zone only.
            (vec![("l.z.test.", "z.zz.", &[A]), apex], "m.z.test.", None),
            (vec![end, apex], "z.test.z.", None),
            (vec![end, apex], "zz.test.", None),
        ] {
            assert_eq!(
                with(&rows, |proofs| proofs.prove_leaf(&name(name_text), TLSA)),
                expected,
                "{name_text} {rows:?}"
            );
        }
    }

    #[test]
    fn a_cut_is_denied_by_the_zone_above_it() {
        use CutProof::{NoCut, NoName, Unsigned};
        for (row, name_text, expected) in [
            (
                ("m.z.test.", "n.z.test.", [NS].as_slice()),
                "m.z.test.",
                Some(Unsigned),
            ),
            (
                ("m.z.test.", "n.z.test.", &[A, MX]),
                "m.z.test.",
                Some(NoCut),
            ),
            (("m.z.test.", "n.z.test.", &[NS, DS]), "m.z.test.", None),
            (("m.z.test.", "n.z.test.", &[NS, SOA]), "m.z.test.", None),
            (("l.z.test.", "a.m.z.test.", &[A]), "m.z.test.", Some(NoCut)),
            (("l.z.test.", "n.z.test.", &[A]), "m.z.test.", Some(NoName)),
            (("m.z.test.", "n.z.test.", &[NS]), "a.m.z.test.", None),
            (("a.z.test.", "b.z.test.", &[A]), "m.z.test.", None),
        ] {
            assert_eq!(
                with(&[row], |proofs| proofs.prove_cut(&name(name_text))),
                expected,
                "{name_text} {row:?}"
            );
        }
    }

    #[test]
    fn a_wildcard_stands_where_nothing_closer_exists() {
        for (row, expected) in [
            (("*.w.z.test.", "x.z.test.", [A].as_slice()), true),
            (("a.w.z.test.", "c.w.z.test.", &[A]), true),
            (("*.w.z.test.", "z.test.", &[A]), true),
            (("*.w.z.test.", "a.w.z.test.", &[A]), false),
            (("c.w.z.test.", "d.w.z.test.", &[A]), false),
            // "b.w.z.test." or a name below it exists.
            (("b.w.z.test.", "c.w.z.test.", &[A]), false),
            (("*.b.w.z.test.", "c.w.z.test.", &[A]), false),
            (("*.w.z.test.", "c.b.w.z.test.", &[A]), false),
            // The parent's record at a delegation, or a record at a DNAME, proves nothing about
            // names below it.
            (("w.z.test.", "x.z.test.", &[NS]), false),
            (("w.z.test.", "x.z.test.", &[A, DNAME]), false),
            (("w.z.test.", "x.z.test.", &[NS, SOA]), true),
            (("w.z.test.", "x.zz.", &[A]), false),
        ] {
            let proved = with(&[row], |proofs| {
                proofs.prove_expansion(&name("a.b.w.z.test."), 3)
            });
            assert_eq!(proved, expected, "{row:?}");
        }
    }
}
