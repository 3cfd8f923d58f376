//! The revocation status of a server's path, by CRLs from files.

use gatepost::config::TrustSource;
use gatepost::net::tls_io::Role;
use gatepost::policy::tls::{PeerCertificate, Revocation};
use jiff::Timestamp;
use rcgen::{CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope, KeyUsagePurpose};

use crate::support::certificates::{
    Authority, BOTH, Pair, at, config, connect, connector, load, pem, self_signed, serve,
    server_config,
};
use crate::support::crl::{CURRENT, EXPIRED, REVOKED, WantedCrl, listing};

const NAME: &str = "mail.partner.example";

/// A root, an authority below it, and a certificate of that.
struct Chain {
    root: Authority,
    issuing: Authority,
    pair: Pair,
}

impl Chain {
    fn new() -> Self {
        let root = Authority::root("Root");
        let issuing = root.intermediate("Issuing");
        let pair = issuing.issue(&[NAME]);
        Self {
            root,
            issuing,
            pair,
        }
    }
}

/// The status of the path of `pair` to what the PEM text `trust` lists, by the CRLs in `files`.
pub(super) async fn status_under(trust: &str, pair: &Pair, files: &[Vec<u8>]) -> String {
    status_at(Timestamp::now(), trust, pair, files).await
}

/// The same at another time.
async fn status_at(now: Timestamp, trust: &str, pair: &Pair, files: &[Vec<u8>]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("trust.pem");
    std::fs::write(&file, trust).expect("the folder is ours");
    let mut partner = connector("partner", TrustSource::File(file), None);
    for (number, content) in files.iter().enumerate() {
        let file = folder.path().join(format!("{number}.crl"));
        std::fs::write(&file, content).expect("the folder is ours");
        partner.crl.push(at(file, 50));
    }
    partner.outbound.revocation = Revocation::Required;
    let material = load(&config(None, vec![partner.clone()]));
    let (address, peer) = serve(server_config(pair, BOTH), 1).await;
    let seen = connect(&material, &partner, address, NAME)
        .await
        .expect("a handshake");
    peer.await.expect("the peer");
    let mut checks = material.client(&partner).checks(None);
    checks.paths.revocation = true;
    let facts = seen.facts(checks, Role::Server, now).await;
    let PeerCertificate::Certificate(shown) = facts.certificate else {
        panic!("a certificate was shown")
    };
    assert_eq!(shown.chain, Ok(()), "revocation is a fact of its own");
    shown.revocation.describe().expect("it was checked")
}

async fn status(chain: &Chain, files: &[Vec<u8>]) -> String {
    status_under(&chain.root.pem(), &chain.pair, files).await
}

fn good() -> String {
    format!("good, by CRLs that hold until {CURRENT}")
}

const NONE_FOR_OWN: &str =
    "unknown: no CRL covers the certificate; add the CRL of its authority to `crl`";
const NONE_FOR_ISSUER: &str = "unknown: no CRL covers the certificate of its issuer (CN=Issuing); add the CRL of its \
                               authority to `crl`";

#[tokio::test]
async fn each_certificate_below_the_anchor_needs_a_crl_of_its_issuer() {
    let chain = Chain::new();
    let (by_root, by_issuing) = (listing(&chain.root, &[]), listing(&chain.issuing, &[]));
    let stranger = listing(&Authority::root("Stranger"), &[]);
    // The name is right, the key is not.
    let forged = listing(&Authority::root("Issuing"), &[&chain.pair.chain[0]]);
    for (files, expected) in [
        (vec![], NONE_FOR_OWN),
        (vec![by_root.clone()], NONE_FOR_OWN),
        (vec![by_issuing.clone()], NONE_FOR_ISSUER),
        (vec![by_root.clone(), stranger.clone()], NONE_FOR_OWN),
        (vec![by_root.clone(), forged.clone()], NONE_FOR_OWN),
        (vec![by_root.clone(), by_issuing.clone()], &good()),
        (
            vec![forged, by_root.clone(), by_issuing.clone(), stranger],
            &good(),
        ),
        (
            vec![
                [pem("X509 CRL", &by_root), pem("X509 CRL", &by_issuing)]
                    .concat()
                    .into_bytes(),
            ],
            &good(),
        ),
    ] {
        assert_eq!(
            status(&chain, &files).await,
            expected,
            "{} files",
            files.len()
        );
    }
}

#[tokio::test]
async fn a_listed_certificate_is_revoked_also_when_its_crl_has_expired() {
    let chain = Chain::new();
    let own = &chain.pair.chain[0];
    let (by_root, by_issuing) = (listing(&chain.root, &[]), listing(&chain.issuing, &[]));
    let of = |authority, revoked: &[&_], day, is_expired| {
        WantedCrl {
            revoked,
            day,
            is_expired,
            ..WantedCrl::default()
        }
        .by(authority)
    };
    let revoked = format!("revoked: the certificate was revoked on {REVOKED}; a new one is needed");
    let issuer = format!(
        "revoked: the certificate of its issuer (CN=Issuing) was revoked on {REVOKED}; a new one is needed"
    );
    let expired = format!(
        "unknown: the CRL that covers the certificate expired on {EXPIRED}; a newer one is needed"
    );
    for (files, expected) in [
        (
            vec![by_root.clone(), of(&chain.issuing, &[own], 1, false)],
            &revoked,
        ),
        (
            vec![by_root.clone(), of(&chain.issuing, &[own], 1, true)],
            &revoked,
        ),
        (vec![of(&chain.issuing, &[own], 1, true)], &revoked),
        (
            vec![by_root.clone(), of(&chain.issuing, &[], 1, true)],
            &expired,
        ),
        (
            vec![
                by_issuing.clone(),
                of(&chain.root, &[&chain.issuing.certificate], 1, false),
            ],
            &issuer,
        ),
        // The newest counts: a certificate that was on hold may be released.
        (
            vec![
                by_root.clone(),
                of(&chain.issuing, &[], 3, false),
                of(&chain.issuing, &[own], 2, false),
            ],
            &good(),
        ),
        (
            vec![
                by_root.clone(),
                of(&chain.issuing, &[own], 3, true),
                of(&chain.issuing, &[], 2, false),
            ],
            &revoked,
        ),
    ] {
        assert_eq!(&status(&chain, &files).await, expected);
    }
}

/// A CRL counts up to nextUpdate, and no longer from that moment on.
#[tokio::test]
async fn a_crl_has_expired_at_its_next_update() {
    let root = Authority::root("Root");
    let pair = root.issue(&[NAME]);
    let files = [listing(&root, &[])];
    let end: Timestamp = CURRENT.parse().expect("a time");
    for (seconds, is_good) in [(-1, true), (0, false), (1, false)] {
        let now = end + jiff::SignedDuration::from_secs(seconds);
        let status = status_at(now, &root.pem(), &pair, &files).await;
        assert_eq!(status == good(), is_good, "{seconds}: {status}");
    }
}

#[tokio::test]
async fn a_crl_covers_the_certificates_in_its_scope_alone() {
    let mut chain = Chain::new();
    let point = |url: &str| CrlDistributionPoint {
        uris: vec![url.to_owned()],
    };
    // Nobody is asked here: nothing fetches in this test.
    chain.pair = chain.issuing.issue_as(&[NAME], |params| {
        params.crl_distribution_points = vec![point("http://crl.partner.example/1.crl")];
    });
    let by_root = listing(&chain.root, &[]);
    let scoped = |url: &str, scope| {
        let scope = CrlIssuingDistributionPoint {
            distribution_point: point(url),
            scope,
        };
        let crl = WantedCrl {
            scope: Some(scope),
            ..WantedCrl::default()
        };
        crl.by(&chain.issuing)
    };
    let own = "http://crl.partner.example/1.crl";
    for (crl, covers) in [
        (scoped(own, None), true),
        (scoped(own, Some(CrlScope::UserCertsOnly)), true),
        (scoped(own, Some(CrlScope::CaCertsOnly)), false),
        (scoped("http://crl.partner.example/2.crl", None), false),
    ] {
        let status = status(&chain, &[by_root.clone(), crl]).await;
        assert_eq!(status == good(), covers, "{status}");
        assert!(
            covers || status.starts_with("unknown: no CRL covers the certificate"),
            "{status}"
        );
    }
}

/// A CRL of certificates of hosts alone covers no authority.
#[tokio::test]
async fn a_crl_of_hosts_or_of_authorities_alone_covers_no_others() {
    let point = || CrlDistributionPoint {
        uris: vec!["http://crl.partner.example/1.crl".to_owned()],
    };
    let root = Authority::root("Root");
    let issuing = root.intermediate_as("Issuing", |params| {
        params.crl_distribution_points = vec![point()];
    });
    let pair = issuing.issue(&[NAME]);
    for (scope, covers) in [
        (None, true),
        (Some(CrlScope::CaCertsOnly), true),
        (Some(CrlScope::UserCertsOnly), false),
    ] {
        let scope = CrlIssuingDistributionPoint {
            distribution_point: point(),
            scope,
        };
        let by_root = WantedCrl {
            scope: Some(scope),
            ..WantedCrl::default()
        };
        let files = [by_root.by(&root), listing(&issuing, &[])];
        let status = status_under(&root.pem(), &pair, &files).await;
        assert_eq!(status == good(), covers, "{status}");
        let none = "unknown: no CRL covers the certificate of its issuer (CN=Issuing)";
        assert!(covers || status.starts_with(none), "{status}");
    }
}

/// Of two CRLs that are equally old, the one that lists the certificate counts.
#[tokio::test]
async fn a_certificate_is_revoked_if_one_of_two_crls_of_one_time_lists_it() {
    let root = Authority::root("Root");
    let pair = root.issue(&[NAME]);
    let (none, own) = (listing(&root, &[]), listing(&root, &[&pair.chain[0]]));
    for files in [[none.clone(), own.clone()], [own, none]] {
        let status = status_under(&root.pem(), &pair, &files).await;
        assert!(status.starts_with("revoked:"), "{status}");
    }
}

#[tokio::test]
async fn an_issuer_without_the_right_to_sign_crls_is_not_believed() {
    let root = Authority::root("Root");
    let issuing = root.intermediate_as("Issuing", |params| {
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    });
    // The same name and key, and no cRLSign.
    let unable = root.cross_sign(&issuing, |params| {
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    let mut pair = issuing.issue(&[NAME]);
    let files = [listing(&root, &[]), listing(&issuing, &[])];
    assert_eq!(status_under(&root.pem(), &pair, &files).await, good());
    pair.chain[1] = unable;
    assert_eq!(status_under(&root.pem(), &pair, &files).await, NONE_FOR_OWN);
}

/// Two roots have certified one authority, and one of them has revoked that.
#[tokio::test]
async fn a_path_without_a_revoked_certificate_is_found_if_there_is_one() {
    let (old, new) = (Authority::root("Old root"), Authority::root("New root"));
    let issuing = old.intermediate("Issuing");
    let crossed = new.cross_sign(&issuing, |_| {});
    let mut pair = issuing.issue(&[NAME]);
    pair.chain.push(crossed);
    let trust = [old.pem(), new.pem()].concat();
    let by_old = listing(&old, &[&issuing.certificate]);
    let files = [by_old, listing(&new, &[]), listing(&issuing, &[])];
    assert_eq!(status_under(&trust, &pair, &files).await, good());
    let without_new = status_under(&old.pem(), &pair, &files).await;
    assert!(
        without_new.starts_with("revoked: the certificate of its issuer (CN=Issuing)"),
        "{without_new}"
    );
}

#[tokio::test]
async fn a_certificate_that_trust_lists_is_an_anchor_but_its_trusted_issuer_may_revoke_it() {
    let root = Authority::root("Root");
    let pair = root.issue(&[NAME]);
    let own = pem("CERTIFICATE", &pair.chain[0]);
    let revoking = [listing(&root, &[&pair.chain[0]])];
    let unknown = "unknown: no CRL can be checked for the certificate, since the certificate of its issuer is missing; \
                   add that to `trust`";
    let good = [listing(&root, &[])];
    assert_eq!(status_under(&own, &pair, &good).await, unknown);
    // The serial number is that of the certificate.
    let of_another = [listing(&Authority::root("Another"), &[&pair.chain[0]])];
    assert_eq!(status_under(&own, &pair, &of_another).await, unknown);
    // Its issuer is missing, so that the signature of the CRL cannot be checked.
    let status = status_under(&own, &pair, &revoking).await;
    assert!(
        status.starts_with("revoked: the certificate was revoked"),
        "{status}"
    );
    let alone = self_signed(&[NAME], |_| {});
    let trust = pem("CERTIFICATE", &alone.chain[0]);
    assert_eq!(
        status_under(&trust, &alone, &[]).await,
        "good: the certificate is a trust anchor itself"
    );
    let both = [own, root.pem()].concat();
    let status = status_under(&both, &pair, &revoking).await;
    assert!(
        status.starts_with("revoked: the certificate was revoked"),
        "{status}"
    );
}

/// A file that is no CRL is a fault; one that has expired, a warning.
#[test]
fn files_are_checked_when_they_are_loaded() {
    use gatepost::net::revocation::CrlFile;
    let folder = tempfile::tempdir().expect("a folder");
    let root = Authority::root("Root");
    let load = |name: &str, content: &[u8]| {
        let file = folder.path().join(name);
        std::fs::write(&file, content).expect("the folder is ours");
        match CrlFile::load(&at(file, 50), Timestamp::now()) {
            Ok((_, warnings)) => warnings.first().map(|fault| fault.message.clone()),
            Err(fault) => Some(format!("fault: {}", fault.message)),
        }
    };
    let expired = WantedCrl {
        is_expired: true,
        ..WantedCrl::default()
    };
    for (content, expected) in [
        (listing(&root, &[]), None),
        (
            expired.by(&root),
            Some("a CRL in FILE has expired (CN=Root, nextUpdate 2021-02-01T00:00:00Z)"),
        ),
        (
            b"<!DOCTYPE html><p>moved".to_vec(),
            Some("fault: FILE is not a usable CRL: it is a web page, not a CRL"),
        ),
        (
            b"".to_vec(),
            Some("fault: FILE is not a usable CRL: it is not a CRL in DER or PEM"),
        ),
        (
            root.pem().into_bytes(),
            Some("fault: FILE is not a usable CRL: it is not a CRL in DER or PEM"),
        ),
        (
            root.certificate.to_vec(),
            Some("fault: FILE is not a usable CRL: it is not a CRL in DER or PEM"),
        ),
        (
            listing(&root, &[])[..100].to_vec(),
            Some("fault: FILE is not a usable CRL: it is not a CRL in DER or PEM"),
        ),
    ] {
        let path = folder.path().join("one.crl").display().to_string();
        let message = load("one.crl", &content).map(|text| text.replace(&path, "FILE"));
        assert_eq!(message.as_deref(), expected);
    }
    let missing = CrlFile::load(&at(folder.path().join("none.crl"), 50), Timestamp::now());
    let fault = missing.expect_err("it does not exist");
    assert!(
        fault.message.ends_with("none.crl does not exist"),
        "{fault}"
    );
}

/// A new file counts; a broken one is reported, and the old one counts on.
#[test]
fn a_changed_file_is_read_again_and_a_broken_one_keeps_the_old_crl() {
    use gatepost::net::revocation::CrlFile;
    let folder = tempfile::tempdir().expect("a folder");
    let root = Authority::root("Root");
    let pair = root.issue(&[NAME]);
    let path = folder.path().join("root.crl");
    let write = |content: &[u8]| {
        // As tools do it: the new file takes the place of the old one.
        let new = folder.path().join("new");
        std::fs::write(&new, content).expect("the folder is ours");
        std::fs::rename(new, &path).expect("the folder is ours");
    };
    write(&listing(&root, &[]));
    let (file, _) = CrlFile::load(&at(path.clone(), 50), Timestamp::now()).expect("a CRL");
    assert_eq!(file.refresh().expect("unchanged"), []);
    write(&listing(&root, &[&pair.chain[0]]));
    let new = file.refresh().expect("a CRL");
    assert_eq!(new.iter().map(|crl| crl.entries).collect::<Vec<_>>(), [1]);
    assert_eq!(file.refresh().expect("unchanged"), []);
    write(b"not a CRL");
    file.refresh().expect_err("a broken file");
    file.refresh().expect_err("it is still broken");
    assert_eq!(file.crls()[0].entries(), 1, "the old one counts");
    std::fs::remove_file(&path).expect("the folder is ours");
    file.refresh().expect_err("no file");
    assert_eq!(file.crls()[0].entries(), 1, "the old one counts");
    write(&listing(&root, &[]));
    assert_eq!(file.refresh().expect("a CRL").len(), 1);
    assert_eq!(file.crls()[0].entries(), 0);
}
