//! Fetched CRLs on disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gatepost::net::revocation::{DistributionPoints, PointFiles};

use super::host::{CrlHost, RECORDS, client, found_with, issued, status};
use super::outcome_of;
use crate::support::certificates::{Authority, Pair, pem};
use crate::support::crl::{WantedCrl, listing};
use crate::support::deliveries::World;

const FIELDS: &str = "ETag: \"5f3-1\"\r\n";

/// A relay with a spool, and a CRL that lists its peer.
struct Kept {
    world: World,
    host: CrlHost,
    pair: Pair,
    crl: Vec<u8>,
    spool: tempfile::TempDir,
}

impl Kept {
    async fn new() -> Self {
        let world = World::with(RECORDS).await;
        let host = CrlHost::start(status("404 Not Found")).await;
        let pair = issued(&world.authority, &[&host.url()]);
        let crl = listing(&world.authority, &[&pair.chain[0]]);
        host.publish(found_with(FIELDS, &crl));
        let own = Self {
            world,
            host,
            pair,
            crl,
            spool: tempfile::tempdir().expect("a folder"),
        };
        let points = own.start();
        assert_eq!(own.outcome(&points).await, "deferred 4.7.5");
        own.file().await;
        own
    }

    fn start(&self) -> DistributionPoints {
        let files = PointFiles::below(self.spool.path());
        DistributionPoints::new(files, Box::new(client(&self.world, None)))
    }

    async fn outcome(&self, points: &DistributionPoints) -> String {
        outcome_of(&self.world, &self.pair, "if-known", points).await
    }

    /// The only file, which is written after the session has its answer.
    async fn file(&self) -> PathBuf {
        let find = async {
            loop {
                let files = listed(self.spool.path());
                if let [file] = &files[..]
                    && !file.ends_with("new.crl")
                {
                    return file.clone();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), find)
            .await
            .expect("it is written")
    }
}

fn listed(spool: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(spool.join("crls"))
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("a file").path())
        .collect()
}

#[tokio::test]
async fn a_fetched_crl_outlives_a_restart() {
    let kept = Kept::new().await;
    let text = std::fs::read_to_string(kept.file().await).expect("a text");
    assert!(
        text.starts_with(&format!("URL: {}\nIssuer: ", kept.host.url())),
        "{text}"
    );
    assert!(
        text.contains("\nETag: \"5f3-1\"\n-----BEGIN X509 CRL-----\n"),
        "{text}"
    );
    let block = text.split("ETag: \"5f3-1\"\n").nth(1).expect("it follows");
    assert_eq!(
        block.replace('\n', ""),
        pem("X509 CRL", &kept.crl).replace(['\r', '\n'], "")
    );
    kept.host.publish(status("404 Not Found"));
    let points = kept.start();
    assert_eq!(
        points.summaries()[0].crl.as_ref().map(|crl| crl.entries),
        Some(1)
    );
    assert_eq!(kept.outcome(&points).await, "deferred 4.7.5");
    assert_eq!(kept.host.requests(), 1);
    // The version outlives it too.
    kept.host.publish(status("304 Not Modified"));
    super::fetch_again(&kept.world, &points).await;
    assert!(kept.host.heard()[1].contains("if-none-match: \"5f3-1\"\r\n"));
    assert_eq!(points.fetches(), (1, 0));
}

/// The content of the file; each is no CRL of the authority, and proves nothing.
#[tokio::test]
async fn a_file_that_was_changed_proves_nothing() {
    let kept = Kept::new().await;
    let file = kept.file().await;
    let text = std::fs::read_to_string(&file).expect("a text");
    let head = &text[..text.find("-----").expect("PEM")];
    // It is newer than the true one, and its version is that of the true one.
    let forged = WantedCrl {
        day: 20,
        ..WantedCrl::default()
    };
    let forged = forged.by(&Authority::root("The Test Authority"));
    let forged = format!("{head}{}", pem("X509 CRL", &forged));
    for (content, is_kept) in [
        (forged.clone(), true),
        (forged.replace("/ca.crl", "/other.crl"), false),
        (text[..text.len() / 2].to_owned(), false),
        (text.replace("Issuer: ", "Other: "), false),
        (String::new(), false),
    ] {
        std::fs::write(&file, &content).expect("the folder is ours");
        let points = kept.start();
        assert_eq!(points.summaries().len(), usize::from(is_kept), "{content}");
        assert_eq!(file.exists(), is_kept, "what is not usable is removed");
        // The true one is fetched.
        assert_eq!(kept.outcome(&points).await, "deferred 4.7.5", "{content}");
        let requests = kept.host.heard();
        assert!(
            !requests
                .last()
                .expect("a request")
                .contains("if-none-match")
        );
        let stored = async {
            while !std::fs::read_to_string(&file).is_ok_and(|now| now == text) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), stored)
            .await
            .expect("it is written again");
    }
    assert_eq!(kept.host.requests(), 6);
}

/// Only files of CRLs are removed.
#[tokio::test]
async fn the_files_of_others_are_left_alone() {
    let kept = Kept::new().await;
    let folder = kept.spool.path().join("crls");
    std::fs::write(folder.join("README"), "mine").expect("the folder is ours");
    std::fs::write(folder.join("old.crl"), "no CRL").expect("the folder is ours");
    drop(kept.start());
    let mut names: Vec<_> = listed(kept.spool.path())
        .iter()
        .map(|path| {
            path.extension()
                .map(|found| found.to_string_lossy().into_owned())
        })
        .collect();
    names.sort();
    assert_eq!(names, [None, Some("crl".to_owned())]);
}
