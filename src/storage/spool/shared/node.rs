//! The life of a node: it joins, renews its lease, gets a new epoch when the lease was over, and leaves.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use tokio_postgres::Row;

use super::super::claim::OwnerEpoch;
use super::super::ids::queue_id;
use super::super::lease::Lease;
use super::super::{BootTime, OwnershipChange, SpoolError};
use super::core::{ResumableLease, SharedCore, spool_error};
use super::folder::NodeToken;
use super::identity::NodeIdentity;
use super::node_share::NEWCOMER;
use crate::smtp::envelope::QueueId;
use crate::storage::postgresql::{Database, DatabaseError, LentConnection};

/// The most nodes: queue ids have six bits for them, and 0 is a relay with a spool of its own.
const NODES_MAX: i16 = 63;
/// The key of the lock under which a node joins.
const JOIN_LOCK: i64 = 0x6a6f_696e_6e6f_6465;

/// The answer of the database to a node that joins.
pub(super) struct Joined {
    pub(super) number: i16,
    pub(super) epoch: OwnerEpoch,
    /// The highest id that the node has drawn, as far as the database knows.
    pub(super) highest: i64,
    /// True if an operator drains the node.
    pub(super) is_draining: bool,
}

const FIND: &str = "SELECT number, token, lease_end > clock_timestamp() AND NOT fenced,
    to_char(lease_end AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
FROM gatepost.node WHERE name = $1 FOR UPDATE";
/// Another machine has the name of a dead node now. What the dead one has left is adopted by the rules
/// of every adoption, so it keeps its row, its configuration and its number.
const RENAME: &str =
    "UPDATE gatepost.node SET name = name || ' (' || number || ')', fenced = true, token = ''
WHERE number = $1";
const FREE_NUMBER: &str = "SELECT min(n)::smallint FROM generate_series(1, $1::integer) AS n
WHERE NOT EXISTS (SELECT FROM gatepost.node WHERE number = n)";
const TAKE: &str = "INSERT INTO gatepost.node AS n
    (number, name, token, epoch, lease, lease_end, joined)
VALUES ($1, $2, $3, nextval('gatepost.epoch'), $4::float8 * interval '1 millisecond',
    clock_timestamp() + $4::float8 * interval '1 millisecond', clock_timestamp())
ON CONFLICT (number) DO UPDATE SET token = excluded.token, epoch = excluded.epoch, lease = excluded.lease,
    lease_end = excluded.lease_end, joined = excluded.joined, fenced = false
RETURNING n.epoch, greatest(n.last_id,
    (SELECT coalesce(max(id), 0) FROM gatepost.message WHERE node = $1)), n.draining";
const RENEW: &str = "UPDATE gatepost.node
SET lease_end = clock_timestamp() + lease, last_id = greatest(last_id, $3), divisor = $4
WHERE number = $1 AND epoch = $2 AND NOT fenced AND lease_end > clock_timestamp()
RETURNING draining";
const LOOK: &str =
    "SELECT epoch, fenced FROM gatepost.node WHERE number = $1 AND token = $2 FOR UPDATE";
const DRAW_EPOCH: &str = "SELECT nextval('gatepost.epoch')";
const NEW_EPOCH: &str = "UPDATE gatepost.node SET epoch = $2, fenced = false,
    lease_end = clock_timestamp() + lease WHERE number = $1";
const LEAVE: &str =
    "UPDATE gatepost.node SET lease_end = clock_timestamp(), fenced = true, last_id = $3
WHERE number = $1 AND epoch = $2";
const OWN_IDS: &str = "SELECT id, epoch FROM gatepost.message WHERE node = $1 AND epoch > 0";

/// Joins as a node: with the number that the name has, or with a free one.
pub(super) async fn join(
    database: &Database,
    name: &str,
    token: &NodeToken,
    lease: Duration,
) -> Result<Joined, SpoolError> {
    let failed = |error: DatabaseError| spool_error(&error);
    let mut connection = database.connection().await.map_err(failed)?;
    let joined = join_on(&mut connection, name, token, lease).await;
    let joined = joined.map_err(failed)??;
    // Mail must not wait for it, and comes into the partition for other days meanwhile.
    match connection
        .batch_execute("SELECT gatepost.keep_partitions()")
        .await
    {
        Ok(()) => connection.give_back(),
        Err(error) => {
            let error = DatabaseError::from(error);
            tracing::warn!(%error, "cannot make the partitions of the queue; trying again soon");
        }
    }
    if joined.is_draining {
        tracing::warn!(
            node = name,
            "this node drains, as an operator has ordered: new mail is rejected with 451; gatepost node drain --end ends it"
        );
    }
    Ok(joined)
}

async fn join_on(
    connection: &mut LentConnection,
    name: &str,
    token: &NodeToken,
    lease: Duration,
) -> Result<Result<Joined, SpoolError>, DatabaseError> {
    let transaction = connection.transaction().await?;
    transaction
        .execute("SELECT pg_advisory_xact_lock($1)", &[&JOIN_LOCK])
        .await?;
    let number: Option<i16> = match transaction.query_opt(FIND, &[&name]).await? {
        Some(row) => {
            let (is_same, is_alive): (bool, bool) = (row.get::<_, &[u8]>(1) == token.0, row.get(2));
            if is_alive && !is_same {
                return Ok(Err(name_is_used(name, row.get(3))));
            }
            if !is_same {
                transaction
                    .execute(RENAME, &[&row.get::<_, i16>(0)])
                    .await?;
            }
            is_same.then(|| row.get(0))
        }
        None => None,
    };
    let number = match number {
        Some(number) => Some(number),
        None => transaction
            .query_one(FREE_NUMBER, &[&i32::from(NODES_MAX)])
            .await?
            .get(0),
    };
    let Some(number) = number else {
        return Ok(Err(SpoolError::Io(format!(
            "the database has {NODES_MAX} nodes already; remove those that are gone: gatepost node remove NAME"
        ))));
    };
    let row = transaction
        .query_one(TAKE, &[&number, &name, &token.0, &millis(lease)])
        .await?;
    let joined = Joined {
        number,
        epoch: epoch(&row, 0),
        highest: row.get(1),
        is_draining: row.get(2),
    };
    transaction.commit().await?;
    Ok(Ok(joined))
}

fn name_is_used(name: &str, until: &str) -> SpoolError {
    SpoolError::Io(format!(
        "another node has the name {name}, and its lease holds until {until} UTC; give this one another [cluster] node, \
         or stop the other and wait for that time"
    ))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn epoch(row: &Row, column: usize) -> OwnerEpoch {
    // The sequence begins with 1.
    OwnerEpoch::of_store(u64::try_from(row.get::<_, i64>(column)).unwrap_or_default())
}

/// The state of a node whose lease could not be renewed.
enum LostLease {
    /// Another process has joined with the name and the secret of this one.
    Replaced,
    /// The lease has run out, and the node has a new epoch.
    NewEpoch {
        epoch: OwnerEpoch,
        /// Messages that others have claimed meanwhile.
        lost: Vec<QueueId>,
    },
}

impl SharedCore {
    /// Renews the lease, or gets a new epoch if it was over. Looks for what other nodes do as well.
    pub(super) async fn renew_lease(&self) -> Result<Lease, SpoolError> {
        let limit = self.lease_time / 3;
        match tokio::time::timeout(limit, self.renew_in_time()).await {
            Ok(renewed) => renewed,
            Err(_) => Err(self.failed(&DatabaseError::Unreachable(format!(
                "no answer to the renewal of the lease within {} ms",
                limit.as_millis()
            )))),
        }
    }

    async fn renew_in_time(&self) -> Result<Lease, SpoolError> {
        let mut watch = self.watch.lock().await;
        let asked = BootTime::now();
        // One of its own: a renewal does not wait behind large content.
        let kept = watch.connection.take().filter(|kept| !kept.is_closed());
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connection().await?,
        };
        let failed = |error: DatabaseError| self.failed(&error);
        // A lease that is over by this node's own clock is not renewed, even if the database would:
        // what was begun under it has ended, and a new epoch says so.
        let is_resuming = self.resumable().lease.is_some();
        if (self.lease.holds() || is_resuming) && self.prolong(&connection).await.map_err(failed)? {
            let lease = Lease::until(asked + self.lease_time);
            // The relay may have forgotten everything meanwhile.
            if let Some(resumable) = self.resumable().lease.as_mut() {
                *resumable = lease;
                watch.connection = Some(connection);
                return Err(self.lease.refusal());
            }
            // The end of the lease may have passed while the answer was awaited.
            if self.lease.holds() {
                self.lease.renew(lease);
                self.availability.answered();
                let looked = self.look_around(&connection, &mut watch).await;
                looked.map_err(failed)?;
                watch.connection = Some(connection);
                return Ok(lease);
            }
        }
        self.resumable().lease = None;
        if self.lease.holds() {
            self.lease
                .lose("its lease is over by the clock of the database; it gets a new one");
        }
        watch.forget_observations();
        self.set_share(NEWCOMER);
        let lost = self.new_epoch(&mut connection).await.map_err(failed)?;
        watch.connection = Some(connection);
        match lost {
            LostLease::Replaced => Err(self.end_replaced()),
            LostLease::NewEpoch { epoch, lost } => {
                self.availability.answered();
                tracing::warn!(
                    node = self.identity.name,
                    epoch = epoch.number(),
                    lost = lost.len(),
                    "the lease was over; this node has a new one"
                );
                self.epoch.store(epoch.number(), Ordering::SeqCst);
                self.begin_epoch(Lease::until(asked + self.lease_time), lost)
            }
        }
    }

    /// Ends this node: another process has its name and its secret.
    fn end_replaced(&self) -> SpoolError {
        let reason = format!(
            "another process has joined as the node {} with a copy of its secret; give each node a folder of its own",
            self.identity.name
        );
        self.lease.lose(&reason);
        if !self.ended.is_cancelled() {
            tracing::error!(reason, "this node ends");
        }
        self.ended.cancel();
        SpoolError::NotOwner(reason)
    }

    /// Takes up the lease of a new epoch, at once or when the relay has forgotten what others have claimed
    /// meanwhile.
    fn begin_epoch(&self, lease: Lease, lost: Vec<QueueId>) -> Result<Lease, SpoolError> {
        let mut resumable = self.resumable();
        if lost.is_empty() && resumable.losses == 0 {
            self.lease.renew(lease);
            return Ok(lease);
        }
        self.own.forget(lost.iter().copied());
        self.lease
            .lose("other nodes have claimed messages meanwhile; these are forgotten first");
        resumable.lease = Some(lease);
        if !lost.is_empty() {
            resumable.losses += 1;
            // Nobody listens any more at the end alone.
            drop(self.changes.send(OwnershipChange::Lost(lost)));
        }
        Err(self.lease.refusal())
    }

    /// Renews the lease in the database. Returns whether this node's epoch was alive.
    async fn prolong(&self, connection: &LentConnection) -> Result<bool, DatabaseError> {
        let run = self.run();
        let last = i64::try_from(self.drafts.ids.last()).unwrap_or(i64::MAX);
        // A node that takes no part in the limits divides by nothing.
        let divisor = if self.is_drained() { 0 } else { self.divisor() };
        let renewed = connection
            .query_opt(RENEW, &[&run.number, &run.epoch(), &last, &divisor])
            .await?;
        if let Some(row) = &renewed {
            self.follow_drain(row.get(0));
        }
        Ok(renewed.is_some())
    }

    /// Records that the relay has forgotten the messages of one change. After the last of them the lease
    /// holds again.
    pub(super) fn resume(&self) {
        let mut resumable = self.resumable();
        resumable.losses = resumable.losses.saturating_sub(1);
        if resumable.losses == 0
            && let Some(lease) = resumable.lease.take()
        {
            self.lease.renew(lease);
        }
    }

    /// The lease that holds again when the relay has forgotten what others have claimed.
    fn resumable(&self) -> MutexGuard<'_, ResumableLease> {
        self.resumable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets a new epoch, and finds out which messages others have claimed.
    async fn new_epoch(&self, connection: &mut LentConnection) -> Result<LostLease, DatabaseError> {
        let NodeIdentity { number, token, .. } = &self.identity;
        let transaction = connection.transaction().await?;
        let found = transaction.query_opt(LOOK, &[number, &token.0]).await?;
        let current = self.run().epoch;
        let is_ours = |row: &Row| {
            let epoch = epoch(row, 0);
            epoch == current || self.tried_epochs().contains(&epoch)
        };
        let Some(found) = found.filter(is_ours) else {
            return Ok(LostLease::Replaced);
        };
        // An earlier try may have lifted the fence.
        let was_fenced = found.get(1) || epoch(&found, 0) != current;
        let drawn = transaction.query_one(DRAW_EPOCH, &[]).await?;
        let fresh = epoch(&drawn, 0);
        // The answer to the commit may be lost; the next try must know the epoch then.
        self.tried_epochs().push(fresh);
        let number_of_fresh = i64::try_from(fresh.number()).unwrap_or(i64::MAX);
        transaction
            .execute(NEW_EPOCH, &[number, &number_of_fresh])
            .await?;
        let mut unknown = Vec::new();
        // The database may be a restored one, which has messages that this node has removed.
        let first = i64::try_from(self.identity.first_epoch.number()).unwrap_or(i64::MAX);
        let rows = transaction.query(OWN_IDS, &[number]).await?;
        let mut are = HashSet::with_capacity(rows.len());
        for row in &rows {
            let Some(id) = queue_id(row.get(0)) else {
                continue;
            };
            are.insert(id);
            if row.get::<_, i64>(1) >= first && !self.own.is_known(id) {
                unknown.push(id);
            }
        }
        let lost = if was_fenced {
            self.own.lost(&are)
        } else {
            Vec::new()
        };
        transaction.commit().await?;
        self.own.doubt(unknown);
        self.tried_epochs().clear();
        Ok(LostLease::NewEpoch { epoch: fresh, lost })
    }

    /// The epochs that this node may have, since the answers to their commits were lost.
    fn tried_epochs(&self) -> MutexGuard<'_, Vec<OwnerEpoch>> {
        self.tried_epochs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the lease of a node that has nothing under way any more: others may claim what it has.
pub(super) async fn leave(core: &SharedCore) -> Result<(), SpoolError> {
    let run = core.run();
    let last = i64::try_from(core.drafts.ids.last()).unwrap_or(i64::MAX);
    let left = async {
        let connection = core.database.connection().await?;
        connection
            .execute(LEAVE, &[&run.number, &run.epoch(), &last])
            .await?;
        connection.give_back();
        Ok::<_, DatabaseError>(())
    };
    core.lease.lose("this node has stopped");
    match tokio::time::timeout(core.lease_time / 3, left).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(spool_error(&error)),
        Err(_) => Err(SpoolError::Io(
            "the database did not answer; other nodes claim the messages of this one when its lease is over".to_owned(),
        )),
    }
}
