//! The TXT record `_mta-sts.DOMAIN` (RFC 8461 §3.1): whether a domain has a policy, and which.

use std::fmt;

/// How a record of ours begins; others are none of our business.
const BEGIN: &str = "v=STSv1;";
/// Letters and digits of an id, at most.
const ID_MAX: usize = 32;
/// Characters in the name of a field, at most.
const NAME_MAX: usize = 32;

/// The id of a policy: another one means another policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PolicyId(Box<str>);

impl PolicyId {
    /// Parses 1 to 32 letters and digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let fits = (1..=ID_MAX).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_alphanumeric());
        fits.then(|| Self(text.into()))
    }

    /// Its letters and digits.
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

/// Why a domain's records name no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// There is more than one record, which counts as none.
    #[error("it has {0} records that begin with \"{BEGIN}\", and only one may be")]
    Several(usize),
    /// The record breaks the grammar.
    #[error("its record is malformed: {0}")]
    Malformed(&'static str),
}

/// The id that a domain's TXT records name; `None` where none of them is about MTA-STS.
pub(super) fn id<'a>(records: impl IntoIterator<Item = &'a str>) -> Result<Option<PolicyId>, RecordFault> {
    let ours: Vec<&str> = records.into_iter().filter_map(|record| record.strip_prefix(BEGIN)).collect();
    match ours[..] {
        [] => Ok(None),
        [fields] => fields_id(fields).map(Some).map_err(RecordFault::Malformed),
        _ => Err(RecordFault::Several(ours.len())),
    }
}

/// Reads TXT records for the fuzzer, as [`id`] does.
///
/// # Errors
/// [`RecordFault`].
#[cfg(fuzzing)]
pub fn fuzzed(records: &[&str]) -> Result<Option<PolicyId>, RecordFault> {
    id(records.iter().copied())
}

/// The id among the fields behind the version.
fn fields_id(fields: &str) -> Result<PolicyId, &'static str> {
    let mut found = None;
    let mut fields = fields.split(';').map(|field| field.trim_matches([' ', '\t'])).peekable();
    while let Some(field) = fields.next() {
        // One ";" may end the record; a field without anything in it is none.
        if field.is_empty() && fields.peek().is_none() {
            break;
        }
        let (name, value) = field.split_once('=').ok_or("a field has no \"=\"")?;
        if name == "id" {
            let id = PolicyId::parse(value).ok_or("the id is not 1 to 32 letters and digits")?;
            if found.replace(id).is_some() {
                return Err("it has more than one id");
            }
        } else if !is_name(name) || !is_value(value) {
            return Err("a field has characters that it cannot have");
        }
    }
    found.ok_or("it has no id")
}

/// The grammar of names is that of the policy's fields, too.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= NAME_MAX
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"_-.".contains(&octet))
}

fn is_value(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'=')
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
        for other in
            ["v=spf1 -all", "v=STSv1", "v=STSv1 ; id=1", "V=STSv1; id=1", "v=STSv2; id=1", " v=STSv1; id=1", ""]
        {
            assert_eq!(of(&[other]), Ok(None), "{other}");
            assert_eq!(of(&[other, "v=STSv1; id=2;", other]), Ok(Some("2".to_owned())), "{other}");
        }
        assert_eq!(of(&[]), Ok(None));
    }

    #[test]
    fn several_records_are_none() {
        assert_eq!(of(&["v=STSv1; id=1;", "v=STSv1; id=1;"]), Err(RecordFault::Several(2)));
        assert_eq!(of(&["v=STSv1; id=1;", "v=STSv1; nonsense"]), Err(RecordFault::Several(2)));
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
            assert!(matches!(of(&[record]), Err(RecordFault::Malformed(_))), "{record}: {:?}", of(&[record]));
        }
    }
}
