//! The `ClientHello`s of one session: which is sent first, and which follows a failure. The choice
//! is a pure function; the policy limits what is offered.

use super::client_hello::{Groups, Hello, Strength};
use super::{Handshake, TlsPolicy};

/// The `ClientHello`s for one server: the first, and the second for a new connection if the server
/// ends the handshake early.
// Rule: policy table (broken handshake).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hellos {
    pub(super) usual: Hello,
    pub(super) first: Hello,
    pub(super) second: Option<Hello>,
}

impl Hellos {
    /// Chooses the `ClientHello`s. `offered` is the connector's `groups`; `known` is the reduced
    /// one that this server accepted last, if any. No choice can lead to a session below the
    /// policy's `min_strength`.
    #[must_use]
    pub fn new(policy: &TlsPolicy, offered: Strength, name: SniUse, known: Option<Hello>) -> Self {
        let floor = policy.min_strength();
        let groups = match (offered, floor) {
            (_, Strength::PostQuantum) => Groups::PostQuantumOnly,
            (Strength::PostQuantum, Strength::Classical) => Groups::PostQuantumFirst,
            (Strength::Classical, Strength::Classical) => Groups::Classical,
        };
        let last = match floor {
            Strength::PostQuantum => Groups::PostQuantumOnly,
            Strength::Classical => Groups::ClassicalAllCurves,
        };
        let usual = Hello {
            groups,
            sni: name != SniUse::Absent,
        };
        let reduced = Hello {
            groups: last,
            sni: name == SniUse::Needed,
        };
        let first = known.map_or(usual, |known| Hello {
            groups: match (floor, known.groups) {
                (
                    Strength::Classical,
                    reduced @ (Groups::Classical | Groups::ClassicalAllCurves),
                ) => reduced,
                (Strength::PostQuantum, _)
                | (Strength::Classical, Groups::PostQuantumFirst | Groups::PostQuantumOnly) => {
                    groups
                }
            },
            sni: usual.sni && (known.sni || reduced.sni),
        });
        let second = if first == reduced { usual } else { reduced };
        Self {
            usual,
            first,
            second: Some(second).filter(|second| *second != first),
        }
    }

    /// The first `ClientHello`.
    #[must_use]
    pub fn first(&self) -> Hello {
        self.first
    }

    /// The `ClientHello` for a new connection after the first failed; `None` if it would be the
    /// same.
    #[must_use]
    pub fn second(&self) -> Option<Hello> {
        self.second
    }

    /// Returns this `ClientHello` if it is not the usual one.
    #[must_use]
    pub fn reduced(&self, hello: Hello) -> Option<Hello> {
        Some(hello).filter(|hello| *hello != self.usual)
    }

    /// Returns this `ClientHello` if it is reduced and was not known before.
    #[must_use]
    pub fn newly_reduced(&self, hello: Hello) -> Option<Hello> {
        self.reduced(hello).filter(|hello| *hello != self.first)
    }
}

/// The use of SNI in a handshake.
// Rule: RFC 7672 §8.1; policy table (broken handshake).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SniUse {
    /// A certificate is demanded, so the server must know which host is asked for.
    Needed,
    /// SNI is sent, but may be left out.
    Optional,
    /// The server is known by an address, which is never sent as SNI.
    Absent,
}

impl SniUse {
    /// Returns the use of SNI for a server with or without a name, in a handshake of this kind.
    #[must_use]
    pub fn of(has_name: bool, handshake: Handshake) -> Self {
        match (has_name, handshake) {
            (false, _) => Self::Absent,
            (true, Handshake::Full) => Self::Needed,
            (true, Handshake::Resumed) => Self::Optional,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tls::{Demand, Layer, Verify};

    const fn hello(groups: Groups, sni: bool) -> Hello {
        Hello { groups, sni }
    }
    const HYBRID: Hello = hello(Groups::PostQuantumFirst, true);
    const CLASSICAL: Hello = hello(Groups::Classical, true);
    const CLASSICAL_NAMELESS: Hello = hello(Groups::Classical, false);
    const HYBRID_NAMELESS: Hello = hello(Groups::PostQuantumFirst, false);
    const CURVES: Hello = hello(Groups::ClassicalAllCurves, true);
    const CURVES_NAMELESS: Hello = hello(Groups::ClassicalAllCurves, false);
    const ONLY: Hello = hello(Groups::PostQuantumOnly, true);
    const ONLY_NAMELESS: Hello = hello(Groups::PostQuantumOnly, false);

    fn forced(min_strength: Strength) -> TlsPolicy {
        TlsPolicy::forced(Demand {
            min_strength,
            ..Demand::new(Layer::Connector, Verify::None)
        })
    }

    #[test]
    fn the_second_client_hello_differs_from_the_first() {
        use SniUse::{Absent, Needed, Optional};
        use Strength::{Classical, PostQuantum};
        for (floor, offered, name, first, second) in [
            (
                Classical,
                PostQuantum,
                Optional,
                HYBRID,
                Some(CURVES_NAMELESS),
            ),
            (Classical, PostQuantum, Needed, HYBRID, Some(CURVES)),
            (
                Classical,
                PostQuantum,
                Absent,
                HYBRID_NAMELESS,
                Some(CURVES_NAMELESS),
            ),
            (
                Classical,
                Classical,
                Optional,
                CLASSICAL,
                Some(CURVES_NAMELESS),
            ),
            (Classical, Classical, Needed, CLASSICAL, Some(CURVES)),
            (
                Classical,
                Classical,
                Absent,
                CLASSICAL_NAMELESS,
                Some(CURVES_NAMELESS),
            ),
            (
                PostQuantum,
                PostQuantum,
                Optional,
                ONLY,
                Some(ONLY_NAMELESS),
            ),
            (PostQuantum, PostQuantum, Needed, ONLY, None),
            (PostQuantum, PostQuantum, Absent, ONLY_NAMELESS, None),
        ] {
            let hellos = Hellos::new(&forced(floor), offered, name, None);
            assert_eq!(
                (hellos.first(), hellos.second()),
                (first, second),
                "{floor}, {offered}, {name:?}"
            );
            assert_eq!(
                (
                    hellos.reduced(first),
                    second.and_then(|second| hellos.reduced(second))
                ),
                (None, second)
            );
        }
    }

    #[test]
    fn a_client_hello_that_worked_comes_first_if_the_policy_allows_it() {
        use SniUse::{Needed, Optional};
        use Strength::{Classical, PostQuantum};
        for (floor, name, known, first, second) in [
            (
                Classical,
                Optional,
                CURVES_NAMELESS,
                CURVES_NAMELESS,
                Some(HYBRID),
            ),
            (Classical, Needed, CURVES_NAMELESS, CURVES, Some(HYBRID)),
            (Classical, Optional, CURVES, CURVES, Some(CURVES_NAMELESS)),
            // Only SNI was the problem, for a connector that accepts nothing but hybrids.
            (
                Classical,
                Optional,
                ONLY_NAMELESS,
                HYBRID_NAMELESS,
                Some(CURVES_NAMELESS),
            ),
            (Classical, Needed, ONLY_NAMELESS, HYBRID, Some(CURVES)),
            // Only the groups were the problem, for a connector that offers classical groups.
            (
                Classical,
                Optional,
                CLASSICAL_NAMELESS,
                CLASSICAL_NAMELESS,
                Some(CURVES_NAMELESS),
            ),
            (
                PostQuantum,
                Optional,
                CURVES_NAMELESS,
                ONLY_NAMELESS,
                Some(ONLY),
            ),
            (PostQuantum, Needed, CURVES_NAMELESS, ONLY, None),
        ] {
            let hellos = Hellos::new(&forced(floor), PostQuantum, name, Some(known));
            assert_eq!(
                (hellos.first(), hellos.second()),
                (first, second),
                "{floor}, {name:?}, {known}"
            );
        }
    }

    #[test]
    fn the_strength_of_a_group_follows_from_its_iana_name() {
        for (group, strength) in [
            ("X25519MLKEM768", Strength::PostQuantum),
            ("secp256r1MLKEM768", Strength::PostQuantum),
            ("X25519", Strength::Classical),
            ("secp256r1", Strength::Classical),
            ("MLKEM768X", Strength::Classical),
        ] {
            assert_eq!(Strength::of_group(group), strength, "{group}");
        }
    }
}
