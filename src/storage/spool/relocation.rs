//! Moves a waiting queue from a folder into a database, and back.
//!
//! Each message is durable in its new place before it leaves the old one, and is delivered from one of
//! them only: in the database it can be claimed after it has left the folder, and the folder must not be
//! in use. A move that was interrupted is completed by the next one. Queue ids, times of acceptance and
//! states stay; so does the evidence, which has nothing to do with the place of the queue.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use super::body::Body;
use super::engine::{OfflineError, SqliteSpool};
use super::shared::{QueueImport, SharedOptions, SharedSpool};
use super::{Claim, Entry, Spool as _, SpoolError};
use crate::policy::adoption::NodeConfig;
use crate::smtp::envelope::QueueId;
use crate::storage::postgresql::Database;
use crate::telemetry::Monitor;

/// The reason why a message stays whose id is that of another one.
const ID_TAKEN: &str = "the database has another message with this queue id, from a relay that was alone; \
     move it when that one is delivered";
/// The messages that are moved in one step.
const STEP: usize = 100;
/// The lease of the node that a move from a database is.
const LEASE: Duration = Duration::from_secs(30);
/// The interval at which it is renewed.
const RENEWAL: Duration = Duration::from_secs(5);
/// The wait between two looks for messages of nodes that have died.
const PAUSE: Duration = Duration::from_secs(1);

/// The result of a move.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueueMove {
    /// The number of messages that were moved.
    pub messages: u64,
    /// Their octets.
    pub octets: u64,
    /// Messages that stay where they were, each with the reason.
    pub remaining: Vec<(QueueId, String)>,
    /// The number of messages that stay because living nodes own them.
    pub owned: u64,
    /// The number of messages that stay because the policy of their node is not the same.
    pub refused: u64,
}

/// The reason why a queue could not be moved, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] OfflineError),
    /// The folder or the database failed.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl QueueMove {
    fn add(&mut self, entry: &Entry) {
        self.messages += 1;
        self.octets += entry.size;
    }
}

/// Moves the queue in a folder that no relay uses into a database. Relays may use that: those with the
/// rules of this configuration, which is the folder's, deliver what comes.
///
/// # Errors
/// [`MoveError`]. What was moved until then stays moved.
pub async fn move_to_database(
    folder: &Path,
    database: &Database,
    config: NodeConfig,
) -> Result<QueueMove, MoveError> {
    let opened = folder.to_owned();
    let open = tokio::task::spawn_blocking(move || SqliteSpool::open_existing(&opened));
    let source = open
        .await
        .map_err(|error| super::file::interrupted(&error))??;
    let mark = mark(folder)?;
    let result = as_node(database, config, async |node| {
        import(&source, &QueueImport::of_node(node, mark)).await
    })
    .await?;
    source.close().await?;
    Ok(result)
}

async fn import(source: &SqliteSpool, target: &QueueImport) -> Result<QueueMove, MoveError> {
    // A move that was interrupted has left some that the folder has no more.
    let mut unfinished = target.unfinished().await?;
    let mut result = QueueMove::default();
    let mut after = None;
    loop {
        let page = source.claim(after, STEP).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.claim.id());
        let mut moved: Vec<Claim> = Vec::with_capacity(page.len());
        for claimed in page {
            let id = claimed.claim.id();
            unfinished.remove(&id);
            match source.load(id).await {
                Ok(entry) if target.put(&entry).await? => {
                    result.add(&entry);
                    moved.push(claimed.claim);
                }
                Ok(_) => result.remaining.push((id, ID_TAKEN.to_owned())),
                Err(error @ SpoolError::Damaged { .. }) => {
                    result.remaining.push((id, error.to_string()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let removals = moved.iter().map(|claim| source.remove(*claim));
        for removed in futures_util::future::join_all(removals).await {
            removed?;
        }
        target.finish(moved.iter().map(Claim::id).collect()).await?;
    }
    target.finish(unfinished.into_iter().collect()).await?;
    Ok(result)
}

/// Does something as a node of its own, which has this configuration and leaves afterwards.
async fn as_node(
    database: &Database,
    config: NodeConfig,
    act: impl AsyncFnOnce(&SharedSpool) -> Result<QueueMove, MoveError>,
) -> Result<QueueMove, MoveError> {
    let scratch = tempfile::tempdir()
        .map_err(|error| SpoolError::Io(format!("cannot make a temporary folder: {error}")))?;
    let options = SharedOptions {
        folder: scratch.path().to_owned(),
        node: format!("spool-move-{}", std::process::id()),
        lease: LEASE,
        monitor: Monitor::default(),
    };
    let node = SharedSpool::open(database.clone(), options).await?;
    let acting = async {
        node.publish_now(config).await?;
        act(&node).await
    };
    let renewing = async {
        loop {
            tokio::time::sleep(RENEWAL).await;
            if let Err(error) = node.renew().await {
                break error;
            }
        }
    };
    let result = tokio::select! {
        result = acting => result,
        error = renewing => Err(error.into()),
    };
    node.leave_for_good().await?;
    result
}

/// Returns the number by which the database knows the messages that come from this folder and have not
/// left it.
pub(super) fn mark(folder: &Path) -> Result<i64, SpoolError> {
    let folder = folder
        .canonicalize()
        .map_err(|error| super::file::io_error("find", folder, &error))?;
    let host = rustix::system::uname();
    let mut text = host.nodename().to_bytes().to_vec();
    text.push(0);
    text.extend_from_slice(folder.as_os_str().as_encoded_bytes());
    let digest = digest(&SHA256, &text);
    let mut octets = [0; 8];
    octets.copy_from_slice(&digest.as_ref()[..8]);
    // Below zero, where no epoch is.
    Ok(-(i64::from_be_bytes(octets) & (i64::MAX >> 1)) - 1)
}

/// Moves the messages in a database that no living node owns into a folder, which is made if it is
/// missing: those that a relay with this configuration may adopt.
///
/// # Errors
/// [`MoveError`]. What was moved until then stays moved.
pub async fn move_to_folder(
    database: &Database,
    folder: &Path,
    config: NodeConfig,
) -> Result<QueueMove, MoveError> {
    let opened = folder.to_owned();
    let open = tokio::task::spawn_blocking(move || SqliteSpool::open(&opened));
    let target = open
        .await
        .map_err(|error| super::file::interrupted(&error))??;
    let result = as_node(database, config, async |source| {
        let mut result = QueueMove::default();
        loop {
            let (before, others) = (result.messages, source.owners_of_others().await?);
            move_page_by_page(source, &target, &mut result).await?;
            // What dead nodes have is claimable when they have been silent for a while.
            if others.of_silent == 0 && result.messages == before {
                (result.owned, result.refused) = (others.of_living, others.claimable);
                return Ok(result);
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
    target.close().await?;
    result
}

async fn move_page_by_page(
    source: &SharedSpool,
    target: &SqliteSpool,
    result: &mut QueueMove,
) -> Result<(), MoveError> {
    let mut after = None;
    loop {
        let page = source.claim(after, STEP).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.claim.id());
        for claimed in page {
            let id = claimed.claim.id();
            let copied = match source.load(id).await {
                Ok(entry) => copy(&entry, target).await.map(|()| entry),
                Err(error) => Err(error),
            };
            match copied {
                Ok(entry) => {
                    source.remove(claimed.claim).await?;
                    result.add(&entry);
                }
                Err(error @ SpoolError::Damaged { .. }) => {
                    result.remaining.push((id, error.to_string()));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Stores a message in the spool of a folder under its own id, unless it is there already.
async fn copy(entry: &Entry, target: &SqliteSpool) -> Result<(), SpoolError> {
    let before = entry
        .id
        .number()
        .checked_sub(1)
        .and_then(QueueId::from_number);
    let there = target.scan(before, 1).await?;
    if there.first().is_some_and(|stored| stored.id == entry.id) {
        return Ok(());
    }
    let mut draft = target.draft_with(entry.id);
    match &entry.body {
        Body::Memory(octets) => draft.write(octets).await?,
        body => {
            let mut reader = body.reader().await?;
            while let Some(chunk) = reader.next().await? {
                draft.write(&chunk).await?;
            }
        }
    }
    target
        .import(draft, entry.accepted, entry.envelope.clone())
        .await
}
