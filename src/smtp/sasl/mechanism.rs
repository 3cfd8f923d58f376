//! The mechanisms by which a client can log in.

/// A mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mechanism {
    /// SCRAM-SHA-256-PLUS (RFC 7677), bound to the TLS session by `tls-exporter` (RFC 9266).
    ScramSha256Plus,
    /// SCRAM-SHA-256 (RFC 7677).
    ScramSha256,
    /// PLAIN (RFC 4616).
    Plain,
    /// LOGIN, which was never standardised (draft-murchison-sasl-login).
    Login,
}

impl Mechanism {
    /// All mechanisms, the strongest first, in the order in which EHLO lists them.
    pub const ALL: [Self; 4] = [
        Self::ScramSha256Plus,
        Self::ScramSha256,
        Self::Plain,
        Self::Login,
    ];

    /// Returns the registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    /// Returns the mechanism of a name, in any case.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    /// Returns true if the client's password crosses the connection.
    #[must_use]
    pub fn sends_password(self) -> bool {
        match self {
            Self::Plain | Self::Login => true,
            Self::ScramSha256 | Self::ScramSha256Plus => false,
        }
    }
}

/// The mechanisms that a session offers under TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OfferedMechanisms([bool; Mechanism::ALL.len()]);

impl OfferedMechanisms {
    /// Returns the set of these mechanisms.
    #[must_use]
    pub fn of(mechanisms: &[Mechanism]) -> Self {
        Self(Mechanism::ALL.map(|mechanism| mechanisms.contains(&mechanism)))
    }

    /// Returns true if no mechanism is offered.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Returns true if this mechanism is offered.
    #[must_use]
    pub fn contains(self, mechanism: Mechanism) -> bool {
        self.iter().any(|offered| offered == mechanism)
    }

    /// Returns the set without the mechanism that needs a channel binding.
    #[must_use]
    pub fn without_binding(self) -> Self {
        let rest: Vec<_> = self
            .iter()
            .filter(|mechanism| *mechanism != Mechanism::ScramSha256Plus)
            .collect();
        Self::of(&rest)
    }

    /// Returns the mechanisms, the strongest first.
    pub fn iter(self) -> impl Iterator<Item = Mechanism> {
        Mechanism::ALL
            .into_iter()
            .zip(self.0)
            .filter_map(|(mechanism, is_offered)| is_offered.then_some(mechanism))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_keeps_the_order_of_strength_and_loses_the_bound_mechanism() {
        let set = OfferedMechanisms::of(&[Mechanism::Login, Mechanism::ScramSha256Plus]);
        let names: Vec<_> = set.iter().map(Mechanism::name).collect();
        assert_eq!(names, ["SCRAM-SHA-256-PLUS", "LOGIN"]);
        assert!(!set.contains(Mechanism::Plain) && !set.is_empty());
        let names: Vec<_> = set.without_binding().iter().map(Mechanism::name).collect();
        assert_eq!(names, ["LOGIN"]);
        assert!(OfferedMechanisms::of(&[]).is_empty());
        assert_eq!(
            Mechanism::parse("scram-sha-256"),
            Some(Mechanism::ScramSha256)
        );
        assert_eq!(Mechanism::parse("SCRAM-SHA-25"), None);
    }
}
