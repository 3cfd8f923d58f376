//! Groups of related domains and hosts, so that the trouble of one provider counts once.
//!
//! Names are grouped by their registrable domain, estimated without the public suffix list. Errors
//! lead to too few groups, which is the safe side for an alarm.

use std::collections::HashMap;

use crate::smtp::address::Host;

/// The second-level labels of country-code domains below which others register.
const REGISTRIES: [&str; 16] = [
    "co", "com", "net", "org", "gov", "edu", "ac", "or", "ne", "go", "mil", "gob", "gouv", "nom",
    "gv", "ltd",
];

/// Returns the estimated registrable domain of a host name; an address literal as it is.
pub(super) fn registrable_domain(host: &Host) -> String {
    let Host::Domain(domain) = host else {
        return host.to_string();
    };
    let labels: Vec<&str> = domain.as_str().split('.').collect();
    let is_registry = match labels[..] {
        [.., second, first] => first.len() == 2 && REGISTRIES.contains(&second),
        _ => false,
    };
    let kept = if is_registry { 3 } else { 2 };
    labels[labels.len().saturating_sub(kept)..].join(".")
}

/// Returns the number of groups among pairs of names. Pairs that share a name belong to the same
/// group.
pub(super) fn count_groups<'a>(pairs: impl Iterator<Item = &'a (String, String)>) -> usize {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut parents: Vec<usize> = Vec::new();
    for (one, other) in pairs {
        let [one, other] = [one, other].map(|name| {
            let place = *places.entry(name).or_insert_with(|| {
                parents.push(parents.len());
                parents.len() - 1
            });
            root(&mut parents, place)
        });
        parents[one] = other;
    }
    parents
        .iter()
        .enumerate()
        .filter(|(place, parent)| place == *parent)
        .count()
}

/// Returns the root of a tree, and shortens the path to it.
fn root(parents: &mut [usize], mut place: usize) -> usize {
    while parents[place] != place {
        parents[place] = parents[parents[place]];
        place = parents[place];
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrable_domain_is_estimated_from_the_name() {
        for (name, expected) in [
            ("example.org", "example.org"),
            ("mx1.mail.example.org", "example.org"),
            ("a-example.mail.protection.outlook.com", "outlook.com"),
            ("mx.example.co.uk", "example.co.uk"),
            ("mx-ha.web.de", "web.de"),
            ("localhost", "localhost"),
            ("[192.0.2.1]", "[192.0.2.1]"),
        ] {
            assert_eq!(
                registrable_domain(&Host::parse(name).expect(name)),
                expected
            );
        }
    }

    #[test]
    fn pairs_that_share_a_name_are_one_group() {
        let pair = |(one, other): &(&str, &str)| ((*one).to_owned(), (*other).to_owned());
        for (pairs, expected) in [
            (&[][..], 0),
            (&[("a", "a")], 1),
            (&[("a", "x"), ("b", "x"), ("c", "x")], 1),
            (&[("a", "x"), ("b", "y"), ("c", "z")], 3),
            (&[("a", "x"), ("b", "y"), ("c", "z"), ("a", "z")], 2),
            (&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "d")], 2),
        ] {
            let pairs: Vec<_> = pairs.iter().map(pair).collect();
            assert_eq!(count_groups(pairs.iter()), expected, "{pairs:?}");
        }
    }
}
