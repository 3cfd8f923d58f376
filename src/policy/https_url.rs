//! URLs of the form `https://host:port/path?query`, or with `http`, a subset of RFC 3986: no user, no
//! fragment. The host is a domain name; with `https` a certificate must match it.

use std::fmt;

use crate::smtp::address::Domain;

/// The maximum length of a URL in octets.
const LENGTH_MAX: usize = 2000;

/// The default port of HTTPS (RFC 9110 §4.2.2).
pub const DEFAULT_PORT: u16 = 443;

/// The scheme of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn prefix(self) -> &'static str {
        match self {
            Self::Http => "http://",
            Self::Https => "https://",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => DEFAULT_PORT,
        }
    }
}

/// The reason why a text is not a usable URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The text does not begin with `https://`.
    #[error("the URL does not begin with \"https://\"")]
    Scheme,
    /// The text does not begin with `http://`, where that is wanted.
    #[error("the URL does not begin with \"http://\"")]
    NotHttp,
    /// The host is not a domain name. Addresses and user information are not accepted.
    #[error("the host of the URL is not a domain name")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("the port of the URL is not a number from 1 to 65535")]
    Port,
    /// The path or query has invalid characters, or there is a fragment.
    #[error("the path of the URL has characters that a URL cannot have")]
    Path,
    /// The URL is longer than 2000 octets.
    #[error("the URL is longer than {LENGTH_MAX} octets")]
    TooLong,
}

/// The target of a request (RFC 9110 §4.2).
// Rule: RFC 8461 §3.3.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Url {
    scheme: Scheme,
    host: Domain,
    port: u16,
    /// The path with the query, beginning with "/".
    path: String,
}

impl Url {
    /// Creates an `https` URL from its parts. `path` begins with "/".
    ///
    /// # Errors
    /// [`UrlError::Port`] for port 0, [`UrlError::Path`], [`UrlError::TooLong`].
    pub fn new(host: Domain, port: u16, path: &str) -> Result<Self, UrlError> {
        Self::of(Scheme::Https, host, port, path)
    }

    fn of(scheme: Scheme, host: Domain, port: u16, path: &str) -> Result<Self, UrlError> {
        if port == 0 {
            return Err(UrlError::Port);
        }
        // Only printable ASCII is allowed, so that a path cannot add lines to the request (RFC 3986
        // §2).
        let allowed = |octet: u8| octet.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&octet);
        if !path.starts_with('/') || !path.bytes().all(allowed) {
            return Err(UrlError::Path);
        }
        if path.len() > LENGTH_MAX {
            return Err(UrlError::TooLong);
        }
        Ok(Self {
            scheme,
            host,
            port,
            path: path.to_owned(),
        })
    }

    /// Parses an `https` URL from a DNS record or the configuration.
    ///
    /// # Errors
    /// Any [`UrlError`].
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        Self::parse_as(Scheme::Https, text)
    }

    /// Parses an `http` URL from a certificate.
    ///
    /// # Errors
    /// Any [`UrlError`].
    pub fn parse_http(text: &str) -> Result<Self, UrlError> {
        Self::parse_as(Scheme::Http, text)
    }

    fn parse_as(scheme: Scheme, text: &str) -> Result<Self, UrlError> {
        if text.len() > LENGTH_MAX {
            return Err(UrlError::TooLong);
        }
        let after_scheme = match text.split_at_checked(scheme.prefix().len()) {
            Some((begin, after_scheme)) if begin.eq_ignore_ascii_case(scheme.prefix()) => {
                after_scheme
            }
            _ => {
                return Err(match scheme {
                    Scheme::Http => UrlError::NotHttp,
                    Scheme::Https => UrlError::Scheme,
                });
            }
        };
        let (authority, path) = match after_scheme.find(['/', '?', '#']) {
            Some(at) => after_scheme.split_at(at),
            None => (after_scheme, ""),
        };
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => {
                (host, port.parse().map_err(|_| UrlError::Port)?)
            }
            Some(_) => return Err(UrlError::Port),
            None => (authority, scheme.default_port()),
        };
        let host = Domain::parse(host).map_err(|_| UrlError::Host)?;
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        Self::of(scheme, host, port, &path)
    }

    /// Returns the host, for DNS, SNI and the certificate.
    #[must_use]
    pub fn host(&self) -> &Domain {
        &self.host
    }

    /// Returns the TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the path with its query, as in the request line.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the value of the Host header field (RFC 9110 §7.2).
    #[must_use]
    pub fn authority(&self) -> String {
        match self.port {
            port if port == self.scheme.default_port() => self.host.to_string(),
            port => format!("{}:{port}", self.host),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = self.scheme.prefix();
        write!(f, "{prefix}{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed_and_formatted() {
        for (text, port, path, written) in [
            ("https://a.example/x", 443, "/x", "https://a.example/x"),
            ("HTTPS://A.Example", 443, "/", "https://a.example/"),
            ("https://a.example:443/", 443, "/", "https://a.example/"),
            (
                "https://a.example:8443/v1?q=%20&r",
                8443,
                "/v1?q=%20&r",
                "https://a.example:8443/v1?q=%20&r",
            ),
            ("https://a.example?q", 443, "/?q", "https://a.example/?q"),
        ] {
            let url = Url::parse(text).expect(text);
            assert_eq!(
                (url.port(), url.path(), url.to_string().as_str()),
                (port, path, written)
            );
        }
    }

    #[test]
    fn http_urls_have_their_own_default_port() {
        for (text, port, written) in [
            ("http://a.example/x", 80, "http://a.example/x"),
            ("http://a.example:80/x", 80, "http://a.example/x"),
            ("HTTP://a.example:443/", 443, "http://a.example:443/"),
        ] {
            let url = Url::parse_http(text).expect(text);
            assert_eq!((url.port(), url.to_string().as_str()), (port, written));
        }
    }

    #[test]
    fn unusable_urls_are_rejected() {
        for (text, error) in [
            ("http://a.example/", UrlError::Scheme),
            ("a.example", UrlError::Scheme),
            ("", UrlError::Scheme),
            ("https:/ü", UrlError::Scheme),
            ("https://", UrlError::Host),
            ("https://192.0.2.1/", UrlError::Host),
            ("https://user@a.example/", UrlError::Host),
            ("https://a.example:0/", UrlError::Port),
            ("https://a.example:65536/", UrlError::Port),
            ("https://a.example:+1/", UrlError::Port),
            ("https://a.example:/", UrlError::Port),
            ("https://[2001:db8::1]/", UrlError::Port),
            ("https://a.example/x#y", UrlError::Path),
            ("https://a.example/x y", UrlError::Path),
            ("https://a.example/x\r\nHost: b", UrlError::Path),
            ("https://a.example/ü", UrlError::Path),
        ] {
            assert_eq!(Url::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(
            Url::parse_http("https://a.example/"),
            Err(UrlError::NotHttp)
        );
        assert_eq!(
            Url::parse(&format!("https://a.example/{}", "x".repeat(2000))),
            Err(UrlError::TooLong)
        );
    }
}
