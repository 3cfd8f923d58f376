//! kill -9 in the middle of everything, again and again, on one folder.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use gatepost::storage::spool::{Spool as _, StoredMessage};

use super::{LARGE, content, envelope, everything, names, open, put, read};

/// Not a test: the process that the next test kills. It commits, and prints what was acknowledged.
#[test]
#[ignore = "run by kill_nine_loses_nothing_that_was_acknowledged"]
fn child_that_commits() {
    let Some(folder) = std::env::var_os("SPOOL_TEST_CHILD") else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let spool = std::sync::Arc::new(open(Path::new(&folder)));
    runtime.block_on(async {
        let workers: Vec<_> = (0..8_u64)
            .map(|worker| {
                let spool = std::sync::Arc::clone(&spool);
                tokio::spawn(async move {
                    for round in 0.. {
                        let seed = worker * 1_000_000 + round;
                        let size = if seed % 5 == 0 { LARGE } else { 3_000 };
                        let entry =
                            put(&spool, &format!("{seed}@example.org"), &content(seed, size)).await;
                        // Every third is removed again, and so must not come back.
                        println!("told {} {seed} {size}", entry.id.number());
                        if seed % 3 == 0 {
                            spool.remove(entry.claim).await.expect("removed");
                            println!("gone {} {seed} {size}", entry.id.number());
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.await.expect("no panic");
        }
    });
}

/// Seed and size of each message that the child acknowledged as stored, and as removed, by the
/// number of its id.
#[derive(Default)]
struct Acknowledged {
    stored: BTreeMap<u64, (u64, u64)>,
    removed: BTreeMap<u64, (u64, u64)>,
}

impl Acknowledged {
    /// Starts the child, kills it after so many lines, and reads the lines to their end.
    fn add_until_killed(&mut self, folder: &Path, lines_before: usize) {
        let mut child = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args([
                "--ignored",
                "--exact",
                "spool::kill::child_that_commits",
                "--nocapture",
                "--test-threads=1",
            ])
            .env("SPOOL_TEST_CHILD", folder)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a child");
        let mut lines = 0;
        for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
            let line = line.expect("text");
            // The test runner's own output may stand before the first line.
            let words: Vec<&str> = line.split(' ').collect();
            let Some(at) = words
                .iter()
                .position(|word| matches!(*word, "told" | "gone"))
            else {
                continue;
            };
            let [id, seed, size] =
                [1, 2, 3].map(|next| words[at + next].parse::<u64>().expect("a number"));
            if words[at] == "gone" {
                &mut self.removed
            } else {
                &mut self.stored
            }
            .insert(id, (seed, size));
            lines += 1;
            if lines == lines_before {
                child.kill().expect("killed");
            }
        }
        child.wait().expect("ended");
        assert!(lines >= lines_before, "{lines} lines before it ended");
    }

    /// Nothing that was stored is lost, and nothing that was removed is back.
    fn is_there(&self, there: &BTreeMap<u64, StoredMessage>) {
        for (id, (seed, size)) in &self.stored {
            let Some(stored) = there.get(id) else {
                // It may have been removed, and killed before it said so.
                assert!(
                    self.removed.contains_key(id) || seed % 3 == 0,
                    "message {seed} is lost"
                );
                continue;
            };
            assert!(!self.removed.contains_key(id), "message {seed} came back");
            assert_eq!(
                (stored.size, &stored.envelope),
                (*size, &envelope(&format!("{seed}@example.org")))
            );
        }
    }
}

#[tokio::test]
async fn kill_nine_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged = Acknowledged::default();
    for lines_before in [1, 40, 150] {
        acknowledged.add_until_killed(folder.path(), lines_before);
        let spool = open(folder.path());
        let there: BTreeMap<u64, StoredMessage> = everything(&spool)
            .await
            .into_iter()
            .map(|stored| (stored.id.number(), stored))
            .collect();
        acknowledged.is_there(&there);
        // Complete, also where nothing was acknowledged.
        for stored in there.values() {
            let seed = stored
                .envelope
                .reverse_path
                .to_string()
                .split('@')
                .next()
                .and_then(|seed| seed.parse().ok())
                .expect("a seed");
            let entry = spool.load(stored.id).await.expect("sound");
            assert_eq!(
                read(&entry.body).await.expect("sound"),
                content(seed, usize::try_from(stored.size).expect("small"))
            );
        }
        let files = there
            .values()
            .filter(|stored| stored.size == LARGE as u64)
            .count();
        assert_eq!(
            names(&folder.path().join("bodies")).len(),
            files,
            "a file for each large one and no other"
        );
        assert!(names(&folder.path().join("aside")).is_empty());
    }
}
