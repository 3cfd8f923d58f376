//! Curves and signature schemes that a server's key may need, although Gatepost cannot use them.
//!
//! A server with OpenSSL does not present an ECDSA key whose curve is missing in the client's
//! supported groups (RFC 8422 §5.1.1), or a key without a matching signature scheme. It ends the
//! handshake with the alert `handshake_failure`. The last `ClientHello` therefore lists all of
//! them, after the ones in use. P-521 keys can be checked; the others prove nothing
//! ([`LeafKey::Uncheckable`](super::leaf_key::LeafKey)).

use rustls::crypto::{ActiveKeyExchange, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, ProtocolVersion, SignatureScheme};

/// The curves for servers' keys, with their IANA numbers. They must follow the key exchange groups.
pub(super) static CURVES: [&dyn SupportedKxGroup; 6] = [
    &Curve {
        group: NamedGroup::secp521r1,
        name: "P-521",
    },
    &Curve {
        group: NamedGroup::Unknown(28),
        name: "brainpoolP512r1",
    },
    &Curve {
        group: NamedGroup::Unknown(27),
        name: "brainpoolP384r1",
    },
    &Curve {
        group: NamedGroup::Unknown(26),
        name: "brainpoolP256r1",
    },
    &Curve {
        group: NamedGroup::Unknown(22),
        name: "secp256k1",
    },
    &Curve {
        group: NamedGroup::Unknown(21),
        name: "P-224",
    },
];

/// The signature schemes of keys that cannot be checked: Ed448, RSA for RSA-PSS alone (RFC 8446
/// §4.2.3), and for TLS 1.3 the brainpool curves (RFC 8734).
pub(super) static SCHEMES: [SignatureScheme; 7] = [
    SignatureScheme::ED448,
    SignatureScheme::Unknown(0x0809),
    SignatureScheme::Unknown(0x080a),
    SignatureScheme::Unknown(0x080b),
    SignatureScheme::Unknown(0x081a),
    SignatureScheme::Unknown(0x081b),
    SignatureScheme::Unknown(0x081c),
];

/// A curve for the key of a server's certificate under TLS 1.2. It cannot be used for key exchange:
/// the handshake fails with a server that prefers it to all groups before it in the list.
#[derive(Debug)]
struct Curve {
    group: NamedGroup,
    name: &'static str,
}

impl SupportedKxGroup for Curve {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Err(Error::General(format!(
            "the peer chose {} for the key exchange, which Gatepost lists for the peer's certificate alone",
            self.name
        )))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        self.group
    }

    /// In TLS 1.3 the signature scheme names the curve of a key.
    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_for_keys_is_listed_for_tls_1_2_alone_and_begins_no_key_exchange() {
        for (curve, (number, name)) in CURVES.iter().zip([
            (25, "P-521"),
            (28, "brainpoolP512r1"),
            (27, "brainpoolP384r1"),
            (26, "brainpoolP256r1"),
            (22, "secp256k1"),
            (21, "P-224"),
        ]) {
            assert_eq!(u16::from(curve.name()), number);
            assert!(curve.usable_for_version(ProtocolVersion::TLSv1_2));
            assert!(
                !curve.usable_for_version(ProtocolVersion::TLSv1_3),
                "{name}"
            );
            let fault = curve
                .start()
                .map(|_| ())
                .expect_err("no key exchange")
                .to_string();
            assert!(
                fault.contains(&format!("chose {name} for the key exchange")),
                "{fault}"
            );
        }
    }
}
