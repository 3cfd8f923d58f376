//! Aliases by CNAME and DNAME records (RFC 1034 §3.6.2, RFC 6672).

use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::proto::serialize::binary::BinDecodable as _;

use super::rrset::RrSet;

/// Returns the target of the CNAME record at a name; `None` if the name is no alias.
pub(super) fn target<'a>(answers: &'a [Record], name: &Name) -> Option<&'a Name> {
    let set = RrSet::find(answers, name, RecordType::CNAME)?;
    let mut targets = set.data().filter_map(|data| match data {
        RData::CNAME(target) => Some(&target.0),
        _ => None,
    });
    targets.next()
}

/// Returns the RRset that proves an alias: its CNAME record or, if that is unsigned, the DNAME
/// record of an ancestor that it was synthesized from (RFC 6672 §5.3.1).
pub(super) fn evidence<'a>(answers: &'a [Record], name: &Name) -> Option<RrSet<'a>> {
    let alias = RrSet::find(answers, name, RecordType::CNAME)?;
    if alias.is_signed() {
        return Some(alias);
    }
    let target = target(answers, name)?;
    let ancestors = (0..name.iter().len()).map(|labels| name.trim_to(labels));
    let mut sets = ancestors.filter_map(|owner| RrSet::find(answers, &owner, RecordType::DNAME));
    Some(
        sets.find(|set| {
            set.data()
                .any(|data| redirects(data, set.owner, name, target))
        })
        .unwrap_or(alias),
    )
}

/// Returns true if a DNAME at `owner` redirects `name` to `target` (RFC 6672 §2.2). The library
/// does not parse this type: its data is one uncompressed name in octets.
fn redirects(data: &RData, owner: &Name, name: &Name, target: &Name) -> bool {
    let RData::Unknown { rdata, .. } = data else {
        return false;
    };
    let Ok(suffix) = Name::from_bytes(&rdata.anything) else {
        return false;
    };
    let prefix_labels = name.iter().len().saturating_sub(owner.iter().len());
    let labels: Vec<&[u8]> = name.iter().take(prefix_labels).collect();
    Name::from_labels(labels)
        .and_then(|prefix| prefix.append_domain(&suffix))
        .is_ok_and(|expanded| expanded == *target)
}
