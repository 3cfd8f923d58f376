//! The verdicts of two resolvers on the same answers, and the comparison: which of them is laxer.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::question::Kind;

/// The finding, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Records(BTreeSet<String>),
    NoData,
    NoDomain,
}

/// The data that was found, and the name at the end of the aliases.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) found: Found,
    pub(crate) end: String,
}

impl fmt::Debug for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.end)?;
        match &self.found {
            Found::Records(records) => {
                let short = records
                    .iter()
                    .map(|record| record.chars().take(24).collect::<String>());
                f.write_str(&short.collect::<Vec<_>>().join(", "))
            }
            none => write!(f, "{none:?}"),
        }
    }
}

/// The verdict of a validator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Secure(Finding),
    Insecure(Finding),
    Bogus(String),
    /// No verdict: the name server had no answer, or none came.
    None(String),
    /// Neither an answer nor a failure within any reasonable time.
    Endless,
}

impl Verdict {
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Secure(_) => "secure",
            Self::Insecure(_) => "insecure",
            Self::Bogus(_) => "bogus",
            Self::None(_) => "none",
            Self::Endless => "endless",
        }
    }
}

/// The verdict of Gatepost.
#[derive(Debug, Clone)]
pub(crate) struct Ours {
    pub(crate) verdict: Verdict,
    /// `Some(true)` if the name that was asked for is secure by itself.
    pub(crate) first: Option<bool>,
    /// The time for which the verdict may be used.
    pub(crate) holds: Duration,
}

/// Nothing in the zones may be believed for longer, whatever an answer says: their TTL is an hour.
const HOLDS_MAX: Duration = Duration::from_hours(1);

/// The verdicts on the questions of one lookup as one. Of a lookup of addresses, the family counts
/// that Gatepost shows.
pub(crate) fn together(ours: &Verdict, kind: Kind, mut theirs: Vec<Verdict>) -> Verdict {
    if let (Kind::Addresses, Verdict::Secure(finding) | Verdict::Insecure(finding)) = (kind, ours)
        && let Found::Records(records) = &finding.found
    {
        let shown = [
            records.iter().any(|one| one.contains(':')),
            records.iter().any(|one| !one.contains(':')),
        ];
        let mut at = 0;
        theirs.retain(|_| {
            at += 1;
            shown[at - 1]
        });
    }
    let worst = |verdict: &Verdict| match verdict {
        Verdict::Bogus(_) => 0,
        Verdict::None(_) | Verdict::Endless => 1,
        Verdict::Insecure(_) => 2,
        Verdict::Secure(_) => 3,
    };
    let finding = theirs.iter().filter_map(|verdict| match verdict {
        Verdict::Secure(finding) | Verdict::Insecure(finding) => Some(finding.clone()),
        Verdict::Bogus(_) | Verdict::None(_) | Verdict::Endless => None,
    });
    let finding = finding.reduce(|one, other| match (&one.found, &other.found) {
        (Found::Records(some), Found::Records(more)) => Finding {
            found: Found::Records(some | more),
            end: other.end,
        },
        (Found::Records(_), _) => one,
        _ => other,
    });
    let worst = theirs
        .iter()
        .min_by_key(|verdict| worst(verdict))
        .expect("a lookup has questions")
        .clone();
    match (worst, finding) {
        (Verdict::Secure(_), Some(finding)) => Verdict::Secure(finding),
        (Verdict::Insecure(_), Some(finding)) => Verdict::Insecure(finding),
        (worst, _) => worst,
    }
}

/// In which way our verdict is laxer than the other; `None` where it is not, or the other is no
/// verdict.
pub(crate) fn laxity(ours: &Verdict, theirs: &Verdict) -> Option<&'static str> {
    match (ours, theirs) {
        (Verdict::Endless, _) => Some("without an end"),
        (Verdict::Secure(_), Verdict::Bogus(_)) => Some("secure where it is bogus"),
        (Verdict::Secure(_), Verdict::Insecure(_)) => Some("secure where it is insecure"),
        (Verdict::Insecure(_), Verdict::Secure(_)) => Some("insecure where it is secure"),
        (Verdict::Insecure(_), Verdict::Bogus(_)) => Some("insecure where it is bogus"),
        (Verdict::Secure(ours), Verdict::Secure(theirs)) if ours != theirs => {
            Some("both secure, with other data")
        }
        _ => None,
    }
}

/// Returns true if our verdict agrees with the zones: secure with their own data, or insecure where
/// they are. Such a verdict deceives nobody, whatever else was added to the answers or lost.
pub(crate) fn is_true(ours: &Verdict, truth: &Verdict) -> bool {
    match (ours, truth) {
        (Verdict::Secure(ours), Verdict::Secure(truth)) => ours == truth,
        (ours, truth) => matches!((ours, truth), (Verdict::Insecure(_), Verdict::Insecure(_))),
    }
}

/// In which way our verdict is laxer than what is true of the zones, whatever happened to the
/// answers.
pub(crate) fn falsehood(
    ours: &Ours,
    truth: &Verdict,
    first: Option<bool>,
    unsigned: bool,
) -> Option<&'static str> {
    if unsigned
        && matches!(
            (&ours.verdict, truth),
            (Verdict::Insecure(_), Verdict::Bogus(_))
        )
    {
        return None;
    }
    if let Some(laxity) = laxity(&ours.verdict, truth) {
        return Some(laxity);
    }
    let is_secure = matches!(ours.verdict, Verdict::Secure(_));
    if is_secure && ours.holds > HOLDS_MAX {
        return Some("believed for longer than its TTL");
    }
    match (ours.first, first) {
        (Some(true), Some(false)) => Some("the name asked for is secure where it is insecure"),
        (Some(false), Some(true)) => Some("the name asked for is insecure where it is secure"),
        _ => None,
    }
}
