//! The messages of SCRAM (RFC 5802 §5, §7), for both sides: strict parsers, and writers.
//!
//! A message is accepted as written or refused. The attributes have one order, and a mandatory
//! extension (`m=`) is refused, since none is known here.

use std::num::NonZeroU32;

use data_encoding::BASE64;

use super::scram::{ITERATIONS_MAX, ITERATIONS_MIN, ScramKey};

/// The name of the channel binding (RFC 9266 §4.2).
pub const TLS_EXPORTER: &str = "tls-exporter";
/// The longest nonce in octets.
const NONCE_MAX: usize = 512;

/// The channel binding flag of a client (`gs2-cbind-flag`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindingFlag {
    /// `n`: the client does not support channel binding.
    Unsupported,
    /// `y`: the client supports it, and believes that the server does not.
    NotOffered,
    /// `p=NAME`: the client binds the exchange to this binding.
    Bound(String),
}

/// The first message of a client.
// Rule: RFC 5802 §5.1, §7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFirst {
    /// The channel binding flag.
    pub binding: BindingFlag,
    /// The identity to act as (`a=`), if the client gives one.
    pub acting: Option<String>,
    /// The user name (`n=`).
    pub name: String,
    /// The client's nonce (`r=`).
    pub nonce: String,
    /// The octets up to the message proper, which the last message repeats.
    pub header: String,
    /// The message proper (`client-first-message-bare`).
    pub bare: String,
}

impl ClientFirst {
    /// Parses the message; `None` if it is malformed.
    #[must_use]
    pub fn parse(message: &str) -> Option<Self> {
        let (flag, after) = message.split_once(',')?;
        let (acting, bare) = after.split_once(',')?;
        let binding = match flag {
            "n" => BindingFlag::Unsupported,
            "y" => BindingFlag::NotOffered,
            flag => BindingFlag::Bound(
                flag.strip_prefix("p=")
                    .filter(|name| is_token(name))?
                    .to_owned(),
            ),
        };
        let acting = match acting {
            "" => None,
            acting => Some(unescape(acting.strip_prefix("a=")?)?),
        };
        let mut attributes = bare.split(',');
        let name = unescape(attributes.next()?.strip_prefix("n=")?)?;
        let nonce = attributes
            .next()?
            .strip_prefix("r=")
            .filter(|nonce| is_nonce(nonce))?;
        attributes.all(is_optional).then(|| Self {
            binding,
            acting,
            name,
            nonce: nonce.to_owned(),
            header: message[..message.len() - bare.len()].to_owned(),
            bare: bare.to_owned(),
        })
    }

    /// Makes the message of a client.
    #[must_use]
    pub fn new(binding: BindingFlag, name: &str, nonce: &str) -> Self {
        let flag = match &binding {
            BindingFlag::Unsupported => "n".to_owned(),
            BindingFlag::NotOffered => "y".to_owned(),
            BindingFlag::Bound(binding) => format!("p={binding}"),
        };
        Self {
            binding,
            acting: None,
            header: format!("{flag},,"),
            bare: format!("n={},r={nonce}", escape(name)),
            name: name.to_owned(),
            nonce: nonce.to_owned(),
        }
    }

    /// Returns the message as it is sent.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.header, self.bare)
    }

    /// Returns the value of `c=` in the client's last message. `data` is the channel binding of the
    /// connection, which counts only if the client binds to it.
    #[must_use]
    pub fn binding_input(&self, data: &[u8]) -> String {
        let mut input = self.header.clone().into_bytes();
        if matches!(self.binding, BindingFlag::Bound(_)) {
            input.extend_from_slice(data);
        }
        BASE64.encode(&input)
    }
}

/// The first message of a server.
// Rule: RFC 5802 §5.1, §7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFirst {
    /// Both nonces in one.
    pub nonce: String,
    /// The salt.
    pub salt: Vec<u8>,
    /// The number of iterations.
    pub iterations: NonZeroU32,
}

impl ServerFirst {
    /// Returns the message as it is sent.
    #[must_use]
    pub fn text(&self) -> String {
        let Self {
            nonce,
            salt,
            iterations,
        } = self;
        format!("r={nonce},s={},i={iterations}", BASE64.encode(salt))
    }

    /// Parses the message for the client that sent `own`; `None` if it is malformed, its nonce does
    /// not extend the client's, or the number of iterations is out of range.
    #[must_use]
    pub fn parse(message: &str, own: &ClientFirst) -> Option<Self> {
        let mut attributes = message.split(',');
        let nonce = attributes
            .next()?
            .strip_prefix("r=")
            .filter(|nonce| is_nonce(nonce))?;
        let salt = BASE64
            .decode(attributes.next()?.strip_prefix("s=")?.as_bytes())
            .ok()?;
        let iterations: u32 = attributes.next()?.strip_prefix("i=")?.parse().ok()?;
        let extends = nonce.len() > own.nonce.len() && nonce.starts_with(&own.nonce);
        let is_good = extends
            && !salt.is_empty()
            && (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations)
            && attributes.all(is_optional);
        is_good.then_some(Self {
            nonce: nonce.to_owned(),
            salt,
            iterations: NonZeroU32::new(iterations)?,
        })
    }
}

/// The last message of a client.
// Rule: RFC 5802 §5.1, §7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFinal {
    /// The value of `c=`, in base64.
    pub binding: String,
    /// Both nonces in one.
    pub nonce: String,
    /// The proof.
    pub proof: ScramKey,
    /// The message without its proof.
    pub without_proof: String,
}

impl ClientFinal {
    /// Parses the message; `None` if it is malformed.
    #[must_use]
    pub fn parse(message: &str) -> Option<Self> {
        let (without_proof, proof) = message.rsplit_once(",p=")?;
        let proof = ScramKey::from_slice(&BASE64.decode(proof.as_bytes()).ok()?)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next()?.strip_prefix("c=")?;
        let nonce = attributes
            .next()?
            .strip_prefix("r=")
            .filter(|nonce| is_nonce(nonce))?;
        attributes.all(is_optional).then(|| Self {
            binding: binding.to_owned(),
            nonce: nonce.to_owned(),
            proof,
            without_proof: without_proof.to_owned(),
        })
    }

    /// Returns the message without its proof, for a client.
    #[must_use]
    pub fn without_proof(binding_input: &str, nonce: &str) -> String {
        format!("c={binding_input},r={nonce}")
    }
}

/// Returns `AuthMessage`, which proof and signature are about.
#[must_use]
pub fn auth_message(first: &ClientFirst, server_first: &str, without_proof: &str) -> String {
    format!("{},{server_first},{without_proof}", first.bare)
}

/// Returns the value of an attribute with octets, such as `v=` and `p=`.
#[must_use]
pub fn octets_attribute(letter: char, key: &ScramKey) -> String {
    format!("{letter}={}", BASE64.encode(key.as_bytes()))
}

/// Returns the server's signature of its last message; `None` if it is malformed or an error.
#[must_use]
pub fn parse_server_final(message: &str) -> Option<ScramKey> {
    let value = message.split(',').next()?.strip_prefix("v=")?;
    ScramKey::from_slice(&BASE64.decode(value.as_bytes()).ok()?)
}

/// Undoes the escapes of a name (`saslname`).
fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('=');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (letter, code) = match part.get(..2)? {
            "2C" => (',', 2),
            "3D" => ('=', 2),
            _ => return None,
        };
        name.push(letter);
        name.push_str(&part[code..]);
    }
    (!name.is_empty() && !name.contains('\0')).then_some(name)
}

fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

fn is_nonce(nonce: &str) -> bool {
    (1..=NONCE_MAX).contains(&nonce.len()) && nonce.bytes().all(|octet| octet.is_ascii_graphic())
}

fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || b".-".contains(&octet))
}

/// Returns true for an attribute that may be ignored.
fn is_optional(attribute: &str) -> bool {
    let mut octets = attribute.bytes();
    octets
        .next()
        .is_some_and(|letter| letter.is_ascii_alphabetic() && letter != b'm')
        && octets.next() == Some(b'=')
        && octets.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_of_a_client_is_read_strictly() {
        let first = ClientFirst::parse("p=tls-exporter,,n=a=2Cb=3Dc,r=x").expect("good");
        assert_eq!(
            (first.name.as_str(), first.header.as_str()),
            ("a,b=c", "p=tls-exporter,,")
        );
        assert_eq!(first.bare, "n=a=2Cb=3Dc,r=x");
        let again = ClientFirst::new(first.binding.clone(), "a,b=c", "x");
        assert_eq!(again, first);
        let acting =
            ClientFirst::parse("n,a=admin,n=user,r=x,z=1").expect("an extension is ignored");
        assert_eq!(acting.acting.as_deref(), Some("admin"));
        for bad in [
            "",
            "n,,",
            "n,n=user,r=x",
            "q,,n=user,r=x",
            "p=,,n=user,r=x",
            "p=a b,,n=user,r=x",
            "n,b=x,n=user,r=x",
            "n,,m=ext,n=user,r=x",
            "n,,n=user,r=x,m=ext",
            "n,,r=x,n=user",
            "n,,n=,r=x",
            "n,,n=user,r=",
            "n,,n=us=er,r=x",
            "n,,n=us=2cer,r=x",
            "n,,n=user,r=a b",
            "n,,n=user,r=x,",
        ] {
            assert_eq!(ClientFirst::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_first_message_of_a_server_must_extend_the_nonce() {
        let own = ClientFirst::new(BindingFlag::Unsupported, "user", "abc");
        let good = "r=abcdef,s=c2FsdA==,i=4096";
        let parsed = ServerFirst::parse(good, &own).expect("good");
        assert_eq!(parsed.text(), good);
        for bad in [
            "r=abc,s=c2FsdA==,i=4096",
            "r=xbcdef,s=c2FsdA==,i=4096",
            "r=abcdef,s=,i=4096",
            "r=abcdef,s=c2FsdA,i=4096",
            "r=abcdef,s=c2FsdA==,i=4095",
            "r=abcdef,s=c2FsdA==,i=1000001",
            "r=abcdef,s=c2FsdA==,i=-1",
            "m=x,r=abcdef,s=c2FsdA==,i=4096",
            "r=abcdef,s=c2FsdA==,i=4096,m=x",
            "r=abcdef,s=c2FsdA==,i=4096,",
            "e=other-error",
        ] {
            assert_eq!(ServerFirst::parse(bad, &own), None, "{bad:?}");
        }
    }

    #[test]
    fn the_last_message_of_a_client_ends_with_its_proof() {
        let proof = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let good = format!("c=biws,r=abcdef,p={proof}");
        let parsed = ClientFinal::parse(&good).expect("good");
        assert_eq!(
            parsed.without_proof,
            ClientFinal::without_proof("biws", "abcdef")
        );
        for bad in [
            "c=biws,r=abcdef".to_owned(),
            "c=biws,r=abcdef,p=AAEC".to_owned(),
            format!("r=abcdef,c=biws,p={proof}"),
            format!("c=biws,r=abcdef,p={proof},x=1"),
            format!("c=biws,r=abcdef,m=1,p={proof}"),
        ] {
            assert_eq!(ClientFinal::parse(&bad), None, "{bad:?}");
        }
    }
}
