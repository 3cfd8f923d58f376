//! Files of trust anchors: accepted content, warnings and errors; and the formats of PEM.

use std::path::PathBuf;

use gatepost::config::{Fault, TrustSource};
use gatepost::net::tls_io::TlsMaterial;
use rcgen::{CertificateParams, KeyUsagePurpose, date_time_ymd};

use super::dane::NAME;
use super::words::{odd, odd_chain};
use crate::support::certificates::*;

struct TrustFolder {
    folder: tempfile::TempDir,
}

impl TrustFolder {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    fn file(&self, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join("trust.pem");
        std::fs::write(&path, content).expect("the folder is ours");
        path
    }

    fn messages(&self, faults: &[Fault]) -> Vec<String> {
        let folder = format!("{}/", self.folder.path().display());
        faults
            .iter()
            .map(|fault| fault.message.replace(&folder, ""))
            .collect()
    }

    /// The warnings about a file, or its faults.
    fn load(&self, content: impl AsRef<[u8]>) -> Result<Vec<String>, Vec<String>> {
        let connector = connector("partner", TrustSource::File(self.file(content)), None);
        match TlsMaterial::load(&config(None, vec![connector])) {
            Ok((_, warnings)) => Ok(self.messages(&warnings)),
            Err(faults) => Err(self.messages(&faults)),
        }
    }
}

fn only(text: &str) -> Vec<String> {
    vec![text.to_owned()]
}

const NOTHING: Vec<String> = Vec::new();

#[test]
fn a_root_that_may_not_issue_is_always_an_error() {
    let trust = TrustFolder::new();
    let crippled = Authority::root_as("Old CA", |params| {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    let good = Authority::root_as("Partner CA", |params| {
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    let words = |number: usize| {
        only(&format!(
            "certificate {number} of trust.pem (CN=Old CA) cannot be a trust anchor: its key usage lacks keyCertSign, so \
             it may not issue certificates"
        ))
    };
    assert_eq!(trust.load(crippled.pem()), Err(words(1)));
    assert_eq!(trust.load(good.pem() + &crippled.pem()), Err(words(2)));
    assert_eq!(trust.load(good.pem()), Ok(NOTHING));
}

#[tokio::test]
async fn an_unusable_root_is_an_error_only_if_nothing_else_is_usable() {
    let trust = TrustFolder::new();
    let good = Authority::root("Partner CA");
    let weak = odd_chain("weak-root").1;
    let malformed = pem("CERTIFICATE", b"\x30\x03\x02\x01\x01");
    for (bad, words) in [
        (
            weak.pem(),
            "(CN=weak-root) cannot be a trust anchor: its key is RSA of 1024 bits, and only 2048 to 8192 are accepted",
        ),
        (malformed.clone(), "is malformed"),
        (
            unreadable_extension().pem(),
            "(CN=Odd CA) cannot be a trust anchor: it is not encoded as RFC 5280 says",
        ),
    ] {
        let told = |number: usize| format!("certificate {number} of trust.pem {words}");
        assert_eq!(trust.load(&bad), Err(only(&told(1))));
        assert_eq!(trust.load(bad.clone() + &bad), Err(vec![told(1), told(2)]));
        assert_eq!(trust.load(good.pem() + &bad), Ok(only(&told(2))));
        assert_eq!(
            path_under(&trust.file(bad + &good.pem()), &good.issue(&[NAME])).await,
            Ok(())
        );
    }
    // A host's certificate is usable by itself.
    let host = self_signed(&[NAME], |_| {});
    let with_host = trust
        .load(malformed + &pem("CERTIFICATE", &host.chain[0]))
        .expect("one is of use");
    assert_eq!(with_host.len(), 2, "{with_host:?}");
}

/// A root whose name constraints are malformed: x509-parser ignores that, rustls-webpki does not.
fn unreadable_extension() -> Authority {
    Authority::root_as("Odd CA", |params| {
        params
            .custom_extensions
            .push(rcgen::CustomExtension::from_oid_content(
                &[2, 5, 29, 30],
                vec![5, 0],
            ));
    })
}

#[test]
fn expired_and_future_dates_are_warnings() {
    let trust = TrustFolder::new();
    let dates = |begins: i32, ends: i32| {
        move |params: &mut CertificateParams| {
            (params.not_before, params.not_after) =
                (date_time_ymd(begins, 1, 2), date_time_ymd(ends, 1, 2));
        }
    };
    for (begins, ends, words) in [
        (2020, 2090, None),
        (2010, 2020, Some("expired on 2020-01-02T00:00:00Z")),
        (2080, 2090, Some("is not valid before 2080-01-02T00:00:00Z")),
    ] {
        let told = |effect: &str| {
            let told = words.map(|words| {
                format!("certificate 1 of trust.pem (CN=Partner CA) {words}; {effect}")
            });
            told.into_iter().collect::<Vec<_>>()
        };
        let root = Authority::root_as("Partner CA", dates(begins, ends));
        assert_eq!(
            trust.load(root.pem()),
            Ok(told("certificates that it issued are still trusted"))
        );
        let host = self_signed(&[NAME], |params| {
            dates(begins, ends)(params);
            params.distinguished_name = common_name("Partner CA");
        });
        let warnings = trust
            .load(pem("CERTIFICATE", &host.chain[0]))
            .expect("it is of use");
        let warnings: Vec<_> = warnings
            .into_iter()
            .filter(|warning| !warning.contains("is not a CA certificate"))
            .collect();
        assert_eq!(warnings, told("the host that shows it is not trusted"));
    }
}

#[tokio::test]
async fn an_expired_root_is_still_trusted() {
    let root = Authority::root_as("Partner CA", |params| {
        params.not_after = date_time_ymd(2020, 1, 2);
    });
    assert_eq!(path_of(&root, &root.issue(&[NAME])).await, Ok(()));
}

#[tokio::test]
async fn certificates_are_read_with_byte_order_marks_and_under_their_old_label() {
    let trust = TrustFolder::new();
    let (one, two) = (Authority::root("Partner CA"), Authority::root("Another CA"));
    let old = |authority: &Authority| pem("X509 CERTIFICATE", &authority.certificate);
    for content in [
        format!("\u{feff}{}{}", one.pem(), two.pem()),
        // Two concatenated files, each with its own byte order mark.
        format!("\u{feff}{}\u{feff}{}", one.pem(), two.pem()),
        old(&one) + &old(&two),
        format!("\u{feff}{}", old(&one) + &two.pem()).replace('\n', "\r\n"),
    ] {
        assert_eq!(trust.load(&content), Ok(NOTHING), "{content}");
        for authority in [&one, &two] {
            assert_eq!(
                path_under(&trust.file(&content), &authority.issue(&[NAME])).await,
                Ok(()),
                "{content}"
            );
        }
    }
}

#[test]
fn our_own_files_are_read_with_byte_order_marks() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = Authority::root("Relay CA")
        .issue(&["relay.example.com"])
        .write(folder.path(), "relay");
    for file in [&files.certificate.value, &files.key.value] {
        let text = std::fs::read_to_string(file).expect("just written");
        std::fs::write(file, format!("\u{feff}{text}")).expect("the folder is ours");
    }
    load(&config(Some(files), Vec::new()));
}

#[test]
fn unsupported_formats_are_named() {
    let trust = TrustFolder::new();
    let good = Authority::root("Partner CA").pem();
    let odd = |name: &str| std::fs::read_to_string(odd(name)).expect("it is there");
    let utf16 = |text: &str| {
        let units = std::iter::once(0xfeff).chain(text.encode_utf16());
        units.flat_map(u16::to_le_bytes).collect::<Vec<_>>()
    };
    let openssl = "trust.pem has an unsupported section: a certificate with trust settings in OpenSSL's own form \
                   (TRUSTED CERTIFICATE)";
    let pkcs7 = "trust.pem has an unsupported section: certificates in PKCS#7";
    for (form, words) in [
        (odd("trusted-form.pem"), openssl),
        (odd("pkcs7.pem"), pkcs7),
    ] {
        assert_eq!(trust.load(&form), Err(only(words)));
        assert_eq!(
            trust.load(form + &good),
            Ok(only(words)),
            "beside a good one"
        );
    }
    assert_eq!(
        trust.load(utf16(&good)),
        Err(only("trust.pem is text in UTF-16"))
    );
    let hidden = "trust.pem has a certificate that does not begin at the start of a line";
    assert_eq!(trust.load(good.clone() + " " + &good), Ok(only(hidden)));
    assert_eq!(trust.load(format!(" {good}")), Err(only(hidden)));
}

/// Our own chain must be complete.
#[test]
fn a_chain_with_a_gap_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = Authority::root("Relay CA")
        .issue(&["relay.example.com"])
        .write(folder.path(), "relay");
    let chain = std::fs::read_to_string(&files.certificate.value).expect("just written");
    let form = std::fs::read_to_string(odd("trusted-form.pem")).expect("it is there");
    std::fs::write(&files.certificate.value, chain + &form).expect("the folder is ours");
    let faults = TlsMaterial::load(&config(Some(files), Vec::new()))
        .map(|_| ())
        .expect_err("a gap");
    assert!(
        faults[0]
            .message
            .ends_with("in OpenSSL's own form (TRUSTED CERTIFICATE)"),
        "{faults:?}"
    );
    assert!(
        faults[0].remedy.starts_with("openssl x509 -in "),
        "{faults:?}"
    );
}
