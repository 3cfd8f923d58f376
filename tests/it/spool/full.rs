//! A disk that is full to the last octet: new mail is refused, the queue is worked off, and mail is
//! taken again as soon as there is room.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use gatepost::smtp::envelope::RecipientState;
use gatepost::storage::spool::{Entry, Options, Spool as _, SpoolError, SqliteSpool};

use super::{LARGE, content, envelope, ids, put, read};

fn fill(disk: &Path) {
    let mut filler = File::create(disk.join("filler")).expect("room for a name");
    for block in [64 * 1024, 4096, 512, 1] {
        while filler.write_all(&vec![b'x'; block]).is_ok() {}
    }
}

/// Stores messages of this size until one is refused because the disk is full.
async fn refuses_messages_of(spool: &SqliteSpool, size: usize) {
    let mut refused = None;
    // Small ones find room in what the database already has, for a while.
    for _ in 0..200 {
        let mut draft = spool.draft();
        let result = match draft.write(&content(1, size)).await {
            Ok(()) => spool
                .commit(draft, envelope("new@example.org"))
                .await
                .map(|(receipt, _)| receipt),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            refused = Some(error);
            break;
        }
    }
    assert!(
        matches!(refused, Some(SpoolError::Full(_))),
        "{size}: {refused:?}"
    );
}

/// What was not removed is there after the next start, as it was stored.
async fn has_the_rest(folder: &Path, rest: &[Entry]) {
    let spool = SqliteSpool::open(folder).expect("a spool");
    let there = ids(&spool).await;
    for (seed, entry) in (20..).zip(rest) {
        assert!(there.contains(&entry.id));
        let loaded = spool.load(entry.id).await.expect("sound");
        assert_eq!(loaded.envelope, entry.envelope);
        assert_eq!(
            read(&loaded.body).await.expect("sound"),
            content(seed, usize::try_from(entry.size).expect("small"))
        );
    }
}

/// `mount -t tmpfs -o size=64m tmpfs DIR`, and `SPOOL_TEST_SMALL_DISK=DIR`, as `.ci/durability`
/// does.
#[tokio::test]
#[ignore = "needs a small disk of its own: .ci/durability"]
async fn the_queue_is_worked_off_on_a_full_disk() {
    let disk = std::env::var_os("SPOOL_TEST_SMALL_DISK")
        .expect("SPOOL_TEST_SMALL_DISK names a small disk");
    let disk = Path::new(&disk);
    let folder = tempfile::tempdir_in(disk).expect("a folder");
    // Nothing is kept free, so that the writes themselves meet the full disk.
    let spool = SqliteSpool::open_with(
        folder.path(),
        &Options {
            keep_free: Some(0),
            ..Options::default()
        },
    )
    .expect("a spool");
    let mut queued = Vec::new();
    for seed in 0..40 {
        queued.push(put(&spool, "a@example.org", &content(seed, 5_000)).await);
    }
    queued.push(put(&spool, "a@example.org", &content(40, LARGE)).await);
    fill(disk);

    for size in [1_000_000, 100_000, LARGE] {
        refuses_messages_of(&spool, size).await;
    }
    for entry in &mut queued {
        entry.envelope.recipients[0].state = RecipientState::Delivered;
        entry.envelope.envid = Some("x".repeat(4_000));
        spool
            .record(entry.id, entry.envelope.clone())
            .await
            .expect("a state can be written");
    }
    let rest = queued.split_off(20);
    for entry in queued {
        spool
            .remove(entry.id)
            .await
            .expect("a delivered one can be removed");
    }

    std::fs::remove_file(disk.join("filler")).expect("removed");
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(error) = spool.admit(0) {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let new = put(&spool, "new@example.org", &content(50, LARGE)).await;
    assert_eq!(read(&new.body).await.expect("sound"), content(50, LARGE));
    drop(spool);
    has_the_rest(folder.path(), &rest).await;
    assert!(
        folder
            .path()
            .join("reserve")
            .metadata()
            .expect("made again")
            .len()
            > 0
    );
}
