//! Faults and warnings about certificate and key files.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use gatepost::config::{Config, Fault, IdentityFiles, SniIdentity, TrustSource};
use gatepost::net::tls_io::TlsMaterial;
use gatepost::policy::tls::NamePattern;
use rcgen::{KeyPair, date_time_ymd};

use crate::support::certificates::*;

struct KeyFolder {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl KeyFolder {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            authority: Authority::root("Relay CA"),
        }
    }

    fn good(&self) -> IdentityFiles {
        self.authority
            .issue(&["relay.example.com"])
            .write(self.folder.path(), "relay")
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("the folder is ours");
        path
    }

    /// The faults or warnings, without the name of the test's folder.
    fn messages(&self, faults: &[Fault]) -> Vec<String> {
        let folder = format!("{}/", self.folder.path().display());
        let told = faults.iter().map(|fault| {
            format!(
                "line {}: {}",
                fault.location.line,
                fault.message.replace(&folder, "")
            )
        });
        told.collect()
    }

    fn faults(&self, config: &Config) -> Vec<String> {
        match TlsMaterial::load(config) {
            Ok((_, warnings)) => panic!("taken, with {warnings:?}"),
            Err(faults) => self.messages(&faults),
        }
    }

    fn warnings(&self, config: &Config) -> Vec<String> {
        match TlsMaterial::load(config) {
            Ok((_, warnings)) => self.messages(&warnings),
            Err(faults) => panic!("refused: {faults:?}"),
        }
    }
}

#[test]
fn a_good_identity_has_no_warning() {
    let keys = KeyFolder::new();
    assert_eq!(
        keys.warnings(&config(Some(keys.good()), Vec::new())),
        [""; 0]
    );
}

#[test]
fn an_invalid_certificate_file_is_reported() {
    let keys = KeyFolder::new();
    let whole = std::fs::read_to_string(keys.good().certificate.value).expect("just written");
    let malformed = pem("CERTIFICATE", b"\x30\x03\x02\x01\x01");
    for (content, told) in [
        (Vec::new(), "relay.pem is empty"),
        (b"hello\n".to_vec(), "relay.pem has no certificate in it"),
        (
            keys.authority.certificate.to_vec(),
            "relay.pem is a certificate in DER, not in PEM",
        ),
        (
            b"\x30\x82\x01\x00\x02\x01\x03".to_vec(),
            "relay.pem is not PEM (PKCS#12, perhaps)",
        ),
        (
            whole.replace("-----END CERTIFICATE-----", "").into_bytes(),
            "relay.pem is damaged: \"-----END CERTIFICATE-----\" is missing",
        ),
        (
            whole.replace('M', "!").into_bytes(),
            "relay.pem is damaged: the text between its markers is not base64",
        ),
        (
            malformed.into_bytes(),
            "certificate 1 of relay.pem is malformed",
        ),
    ] {
        let files = keys.good();
        std::fs::write(&files.certificate.value, content).expect("the folder is ours");
        assert_eq!(
            keys.faults(&config(Some(files), Vec::new())),
            [format!("line 11: {told}")]
        );
    }
}

#[test]
fn an_invalid_key_file_is_reported() {
    let keys = KeyFolder::new();
    let encrypted = pem("ENCRYPTED PRIVATE KEY", b"whatever");
    let old_encrypted =
        pem("RSA PRIVATE KEY", b"whatever").replacen('\n', "\nProc-Type: 4,ENCRYPTED\n", 1);
    let other = pem(
        "PRIVATE KEY",
        &KeyPair::generate().expect("a key").serialize_der(),
    );
    let unusable = pem("PRIVATE KEY", b"\x30\x03\x02\x01\x01");
    for (content, told) in [
        (Vec::new(), "relay.key is empty"),
        (b"hello\n".to_vec(), "relay.key has no private key in it"),
        (
            encrypted.into_bytes(),
            "relay.key is an encrypted key, and Gatepost cannot ask for its passphrase",
        ),
        (
            old_encrypted.into_bytes(),
            "relay.key is an encrypted key, and Gatepost cannot ask for its passphrase",
        ),
        (
            KeyPair::generate().expect("a key").serialize_der(),
            "relay.key is not PEM (DER, perhaps)",
        ),
        (
            other.into_bytes(),
            "the key in relay.key does not belong to the certificate in relay.pem",
        ),
        (
            unusable.into_bytes(),
            "relay.key is not a key that TLS can use here",
        ),
    ] {
        let files = keys.good();
        std::fs::write(&files.key.value, content).expect("the folder is ours");
        assert_eq!(
            keys.faults(&config(Some(files), Vec::new())),
            [format!("line 12: {told}")]
        );
    }
}

#[test]
fn all_faults_are_reported_in_the_order_of_the_file() {
    let keys = KeyFolder::new();
    let mut bad = keys.good();
    bad.certificate.value = PathBuf::from("/nowhere/relay.pem");
    bad.key.value = keys.file("empty.key", "");
    let mut of_partner = bad.clone();
    of_partner.certificate.location.line = 41;
    of_partner.key.location.line = 42;
    let partner = connector(
        "partner",
        TrustSource::File(PathBuf::from("/nowhere/trust.pem")),
        Some(of_partner),
    );
    let another = connector("another", partner.trust.value.clone(), None);
    assert_eq!(
        keys.faults(&config(Some(bad), vec![partner, another])),
        [
            "line 11: /nowhere/relay.pem does not exist",
            "line 12: empty.key is empty",
            // Reported once, although two connectors name it.
            "line 40: /nowhere/trust.pem does not exist",
            "line 41: /nowhere/relay.pem does not exist",
            "line 42: empty.key is empty",
        ]
    );
}

#[test]
fn a_chain_in_the_wrong_order_is_reported_with_a_remedy() {
    let keys = KeyFolder::new();
    let mut pair = keys
        .authority
        .intermediate("Relay CA 2")
        .issue(&["relay.example.com"]);
    pair.chain.reverse();
    let config = config(Some(pair.write(keys.folder.path(), "relay")), Vec::new());
    let faults = TlsMaterial::load(&config)
        .map(|_| ())
        .expect_err("the wrong order");
    assert_eq!(
        faults[0].remedy,
        "It belongs to certificate 2 of the file: put that one first."
    );
}

#[test]
fn an_open_key_is_a_warning() {
    let keys = KeyFolder::new();
    for (mode, told) in [
        (0o600, None),
        (0o400, None),
        (0o640, Some("its whole group (mode 0640)")),
        (0o644, Some("every user of this machine (mode 0644)")),
    ] {
        let files = keys.good();
        let key = files.key.value.clone();
        // A key of an ordinary user. For root's keys other rules apply, and under root these files
        // are root's.
        let _not_root = std::os::unix::fs::chown(&key, Some(1), None);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode))
            .expect("the file is ours");
        let told =
            told.map(|who| format!("line 12: relay.key is a private key, and open to {who}"));
        assert_eq!(
            keys.warnings(&config(Some(files), Vec::new())),
            Vec::from_iter(told)
        );
        std::fs::remove_file(key).expect("the file is ours");
    }
}

/// 0640 root:gatepost is the mode by which root lets a service read a key without changing it.
#[test]
fn a_root_owned_key_readable_by_a_group_is_no_warning() {
    let keys = KeyFolder::new();
    let files = keys.good();
    let key = files.key.value.clone();
    let config = config(Some(files), Vec::new());
    if std::os::unix::fs::chown(&key, Some(0), None).is_err() {
        // Only root can do this.
        return;
    }
    for (mode, is_told) in [(0o640, false), (0o660, true), (0o644, true)] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode))
            .expect("the file is ours");
        assert_eq!(!keys.warnings(&config).is_empty(), is_told, "{mode:o}");
    }
}

#[test]
fn an_unreadable_file_is_reported_with_its_mode() {
    let keys = KeyFolder::new();
    let files = keys.good();
    std::fs::set_permissions(&files.key.value, std::fs::Permissions::from_mode(0o000))
        .expect("the file is ours");
    if std::fs::read(&files.key.value).is_ok() {
        // The superuser may read everything.
        return;
    }
    let faults = keys.faults(&config(Some(files), Vec::new()));
    assert!(
        faults[0].starts_with(
            "line 12: relay.key may not be read: its mode is 0000, its owner is user "
        ),
        "{faults:?}"
    );
}

#[test]
fn dates_and_hostname_are_warnings() {
    let keys = KeyFolder::new();
    let today = jiff::Timestamp::now();
    let in_days = |days: i64| {
        let day = (today + jiff::SignedDuration::from_hours(24 * days)).to_string();
        let mut parts = day[..10]
            .split('-')
            .map(|part| part.parse::<u16>().expect("a date"));
        let mut next = || parts.next().expect("year, month, day");
        let (year, month, day) = (next(), next(), next());
        date_time_ymd(
            year.into(),
            u8::try_from(month).expect("1 to 12"),
            u8::try_from(day).expect("1 to 31"),
        )
    };
    for (begins, ends, told) in [
        (-300, 60, None),
        (-300, 29, Some("expires on")),
        // Ten of eleven days remain, more than the last third.
        (-1, 10, None),
        (-9, 2, Some("expires on")),
        (-300, -1, Some("expired on")),
        (2, 60, Some("is not valid before")),
    ] {
        let pair = keys.authority.issue_as(&["relay.example.com"], |params| {
            params.not_before = in_days(begins);
            params.not_after = in_days(ends);
        });
        let warnings = keys.warnings(&config(
            Some(pair.write(keys.folder.path(), "relay")),
            Vec::new(),
        ));
        match told {
            None => assert_eq!(warnings, [""; 0], "{begins} to {ends}"),
            Some(told) => {
                assert_eq!(warnings.len(), 1, "{begins} to {ends}: {warnings:?}");
                assert!(
                    warnings[0]
                        .starts_with(&format!("line 11: the certificate in relay.pem {told} 20")),
                    "{warnings:?}"
                );
            }
        }
    }
    let other = keys
        .authority
        .issue(&["mx.example.com"])
        .write(keys.folder.path(), "relay");
    assert_eq!(
        keys.warnings(&config(Some(other), Vec::new())),
        [
            "line 11: the certificate in relay.pem is for mx.example.com, not for our own hostname relay.example.com"
        ]
    );
}

#[test]
fn an_sni_identity_must_carry_its_configured_names() {
    let keys = KeyFolder::new();
    for (carried, listed, told) in [
        (&["*.example.net"][..], &["mx.example.net"][..], None),
        (&["*.example.net"], &["*.example.net"], None),
        (
            &["mx.example.net"],
            &["*.example.net"],
            Some("mx.example.net, but listed for *.example.net"),
        ),
        (
            &["*.example.net"],
            &["example.net"],
            Some("*.example.net, but listed for example.net"),
        ),
        (
            &[],
            &["mx.example.net"],
            Some("no DNS name at all, but listed for mx.example.net"),
        ),
    ] {
        let files = keys
            .authority
            .issue(carried)
            .write(keys.folder.path(), "sni");
        let names = listed
            .iter()
            .map(|name| NamePattern::parse(name).expect(name))
            .collect();
        let mut config = config(Some(keys.good()), Vec::new());
        config.tls.sni.push(SniIdentity { names, files });
        match told {
            None => assert_eq!(keys.warnings(&config), [""; 0]),
            Some(told) => {
                assert_eq!(
                    keys.faults(&config),
                    [format!("line 11: the certificate in sni.pem is for {told}")]
                );
            }
        }
    }
}

#[test]
fn a_trust_file_without_authorities_is_a_warning() {
    let keys = KeyFolder::new();
    let with_trust = |file| {
        config(
            None,
            vec![connector("partner", TrustSource::File(file), None)],
        )
    };
    assert_eq!(
        keys.faults(&with_trust(keys.file("trust.pem", "nothing\n"))),
        ["line 40: trust.pem has no certificate in it"]
    );
    let host = keys.authority.issue(&["mail.partner.example"]);
    let both = keys.authority.pem() + &pem("CERTIFICATE", &host.chain[0]);
    assert_eq!(
        keys.warnings(&with_trust(keys.file("trust.pem", both))),
        [
            "line 40: certificate 2 of trust.pem (CN=a host) is not a CA certificate: only this certificate itself is trusted"
        ]
    );
}

#[test]
fn identities_have_a_summary() {
    let keys = KeyFolder::new();
    let pair = keys
        .authority
        .issue_as(&["relay.example.com", "*.example.com"], |params| {
            params.not_after = date_time_ymd(2090, 1, 2);
        });
    let files = pair.write(keys.folder.path(), "relay");
    // As a client identity the same file is not listed again.
    let partner = connector("partner", TrustSource::Webpki, Some(files.clone()));
    let identities = load(&config(Some(files.clone()), vec![partner])).identities();
    assert_eq!(identities.len(), 1);
    assert_eq!(identities[0].file, files.certificate.value);
    assert_eq!(identities[0].names, ["relay.example.com", "*.example.com"]);
    assert_eq!(identities[0].not_after.to_string(), "2090-01-02T00:00:00Z");
}

#[test]
fn the_operating_systems_trust_is_loaded() {
    if rustls_native_certs::load_native_certs().certs.is_empty() {
        return;
    }
    load(&config(
        None,
        vec![connector("partner", TrustSource::System, None)],
    ));
}
