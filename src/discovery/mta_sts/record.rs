//! The TXT record `_mta-sts.DOMAIN` (RFC 8461 §3.1), which announces a policy and its id.

use std::fmt;

/// The beginning of an MTA-STS record. Other TXT records are ignored.
const BEGIN: &str = "v=STSv1;";
/// The maximum length of an id.
const ID_MAX: usize = 32;
/// The maximum length of a field name.
const NAME_MAX: usize = 32;

/// The id of a policy. It changes with the policy.
// Rule: RFC 8461 §3.1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PolicyId(Box<str>);

impl PolicyId {
    /// Parses an id of 1 to 32 letters and digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let fits = (1..=ID_MAX).contains(&text.len())
            && text.bytes().all(|octet| octet.is_ascii_alphanumeric());
        fits.then(|| Self(text.into()))
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fault in the MTA-STS records of a domain.
// Rule: RFC 8461 §3.1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// There is more than one record, which counts as none.
    #[error("it has {0} records that begin with \"{BEGIN}\", and only one may be")]
    Several(usize),
    /// The record violates the grammar.
    #[error("its record is malformed: {0}")]
    Malformed(FieldFault),
}

/// The fault in the fields of an MTA-STS record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldFault {
    /// A field has no name.
    #[error("a field has no \"=\"")]
    NoName,
    /// A field has characters that no field may have.
    #[error("a field has characters that it cannot have")]
    Characters,
    /// The id is not valid.
    #[error("the id is not 1 to {ID_MAX} letters and digits")]
    Id,
    /// There is more than one id.
    #[error("it has more than one id")]
    SeveralIds,
    /// There is no id.
    #[error("it has no id")]
    NoId,
}

/// Returns the id in a domain's TXT records; `None` if none of them is an MTA-STS record.
pub(super) fn id<'a>(
    records: impl IntoIterator<Item = &'a str>,
) -> Result<Option<PolicyId>, RecordFault> {
    let ours: Vec<&str> = records
        .into_iter()
        .filter_map(|record| record.strip_prefix(BEGIN))
        .collect();
    match ours[..] {
        [] => Ok(None),
        [fields] => fields_id(fields).map(Some).map_err(RecordFault::Malformed),
        _ => Err(RecordFault::Several(ours.len())),
    }
}

/// Parses TXT records as [`id`] does, for the fuzzer.
///
/// # Errors
/// [`RecordFault`].
#[cfg(fuzzing)]
pub fn fuzzed(records: &[&str]) -> Result<Option<PolicyId>, RecordFault> {
    id(records.iter().copied())
}

/// Parses the fields after the version and returns the id.
fn fields_id(fields: &str) -> Result<PolicyId, FieldFault> {
    let mut found = None;
    let mut fields = fields
        .split(';')
        .map(|field| field.trim_matches([' ', '\t']))
        .peekable();
    while let Some(field) = fields.next() {
        // One ";" may end the record. An empty field elsewhere is an error.
        if field.is_empty() && fields.peek().is_none() {
            break;
        }
        let (name, value) = field.split_once('=').ok_or(FieldFault::NoName)?;
        if name == "id" {
            let id = PolicyId::parse(value).ok_or(FieldFault::Id)?;
            if found.replace(id).is_some() {
                return Err(FieldFault::SeveralIds);
            }
        } else if !is_name(name) || !is_value(value) {
            return Err(FieldFault::Characters);
        }
    }
    found.ok_or(FieldFault::NoId)
}

/// Returns true for a valid field name, in a record or in a policy.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= NAME_MAX
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || b"_-.".contains(&octet))
}

fn is_value(value: &str) -> bool {
    !value.is_empty()
        && value
            .bytes()
            .all(|octet| octet.is_ascii_graphic() && octet != b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(records: &[&str]) -> Result<Option<String>, RecordFault> {
        id(records.iter().copied()).map(|id| id.map(|id| id.to_string()))
    }

    #[test]
    fn one_record_names_the_id() {
        let longest = "a".repeat(32);
        for (record, id) in [
            ("v=STSv1; id=20160831085700Z;", "20160831085700Z"),
            ("v=STSv1;id=1", "1"),
            ("v=STSv1;\t id=1 \t;  ", "1"),
            ("v=STSv1; new=x-y_z/1; id=A; more.of-it_=!", "A"),
            (&format!("v=STSv1; id={longest};"), &longest),
        ] {
            assert_eq!(of(&[record]), Ok(Some(id.to_owned())), "{record}");
        }
    }

    #[test]
    fn other_records_do_not_count() {
        for other in [
            "v=spf1 -all",
            "v=STSv1",
            "v=STSv1 ; id=1",
            "V=STSv1; id=1",
            "v=STSv2; id=1",
            " v=STSv1; id=1",
            "",
        ] {
            assert_eq!(of(&[other]), Ok(None), "{other}");
            assert_eq!(
                of(&[other, "v=STSv1; id=2;", other]),
                Ok(Some("2".to_owned())),
                "{other}"
            );
        }
        assert_eq!(of(&[]), Ok(None));
    }

    #[test]
    fn several_records_are_none() {
        assert_eq!(
            of(&["v=STSv1; id=1;", "v=STSv1; id=1;"]),
            Err(RecordFault::Several(2))
        );
        assert_eq!(
            of(&["v=STSv1; id=1;", "v=STSv1; nonsense"]),
            Err(RecordFault::Several(2))
        );
    }

    #[test]
    fn malformed_records_are_none() {
        let too_long = format!("v=STSv1; id={};", "a".repeat(33));
        for record in [
            "v=STSv1;",
            "v=STSv1; ;",
            "v=STSv1; id",
            "v=STSv1; id=;",
            "v=STSv1; id=a-b;",
            "v=STSv1; id=a b;",
            "v=STSv1; id=ä;",
            "v=STSv1; ID=1;",
            "v=STSv1; id=1; id=2;",
            "v=STSv1; id=1;; x=y",
            "v=STSv1; id=1; x",
            "v=STSv1; id=1; x=",
            "v=STSv1; id=1; x=a=b",
            "v=STSv1; id=1; -x=a",
            &too_long,
        ] {
            assert!(
                matches!(of(&[record]), Err(RecordFault::Malformed(_))),
                "{record}: {:?}",
                of(&[record])
            );
        }
    }
}
