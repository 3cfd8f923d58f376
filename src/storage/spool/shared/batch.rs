//! The statement that carries out a batch of operations: one transaction, and one round trip.
//!
//! It affects nothing unless the run of this node is alive by the clock of the database, and changes a
//! message only if its row has the owner and the epoch of the claim. So a node that was thought dead
//! changes nothing that another one has adopted, whenever its statements arrive.
//!
//! The evidence of the changes is in the same statement. If the chain has another head than the one that
//! the statement names, or if a message with evidence cannot be changed, nothing of it is carried out.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::super::claim::OwnerEpoch;
use super::super::envelope_parts::part_number;
use super::super::ids::{queue_id, row_id};
use super::batch_evidence::BatchEvidence;
use super::identity::NodeRun;
use super::queue::{EnvelopeEdit, NewRow, SharedOp};
use crate::smtp::envelope::QueueId;
use crate::storage::SharedChain;
use crate::storage::postgresql::{DatabaseError, LentConnection};
use crate::storage::record_chain::ChainHead;
use crate::storage::shared_chain::{ChainExtension, number};

/// Changes, removes and stores messages. Parameters: the node and its epoch; what is removed; what is
/// replaced as a unit; what is changed by parts, and these; what is new; the chain, the number and the
/// hash of its head before and after, the lines, and the messages that they are about. The reports about
/// a message are stored only if the message was changed. The row 0 says that the chain was extended.
const BATCH: &str = "
WITH alive AS MATERIALIZED (
    SELECT FROM gatepost.node
    WHERE number = $1 AND epoch = $2 AND NOT fenced AND lease_end > clock_timestamp()
), head AS (
    UPDATE gatepost.evidence_chain
    SET last_seq = $23, last_hash = $24,
        day = greatest(day, (clock_timestamp() AT TIME ZONE 'UTC')::date)
    WHERE id = $20::integer AND last_seq = $21::bigint AND last_hash = $22::text
        AND EXISTS (SELECT FROM alive)
    RETURNING id, day
), own AS MATERIALIZED (
    SELECT FROM alive WHERE $20::integer IS NULL OR EXISTS (SELECT FROM head)
), records AS (
    INSERT INTO gatepost.evidence (chain, day, seq, line)
    SELECT head.id, head.day, $21 + number, line
    FROM head, unnest($25::text[]) WITH ORDINALITY AS lines (line, number)
), removed AS (
    DELETE FROM gatepost.message m
    USING unnest($3::bigint[], $4::bigint[]) AS r(id, epoch)
    WHERE m.id = r.id AND m.node = $1 AND m.epoch = r.epoch AND EXISTS (SELECT FROM own)
    RETURNING m.id
), removed_parts AS (
    DELETE FROM gatepost.recipient WHERE message IN (SELECT id FROM removed)
), removed_bodies AS (
    DELETE FROM gatepost.body WHERE message IN (SELECT id FROM removed)
), replaced AS (
    UPDATE gatepost.message m SET envelope = u.envelope
    FROM unnest($5::bigint[], $6::bigint[], $7::text[]) AS u(id, epoch, envelope)
    WHERE m.id = u.id AND m.node = $1 AND m.epoch = u.epoch AND EXISTS (SELECT FROM own)
    RETURNING m.id
), locked AS (
    SELECT m.id FROM gatepost.message m
    JOIN unnest($8::bigint[], $9::bigint[]) AS l(id, epoch) ON m.id = l.id
    WHERE m.node = $1 AND m.epoch = l.epoch AND EXISTS (SELECT FROM own)
    FOR UPDATE OF m
), parts AS (
    INSERT INTO gatepost.recipient (message, part, status)
    SELECT p.message, p.part, p.status
    FROM unnest($10::bigint[], $11::integer[], $12::text[]) AS p(message, part, status)
    WHERE p.message IN (SELECT id FROM locked)
    ON CONFLICT (message, part) DO UPDATE SET status = excluded.status
), changed AS (
    SELECT id FROM removed UNION ALL SELECT id FROM replaced UNION ALL SELECT id FROM locked
), added AS (
    INSERT INTO gatepost.message (id, node, epoch, accepted, size, crc, envelope, body)
    SELECT n.id, $1, $2, n.accepted, n.size, n.crc, n.envelope, n.body
    FROM unnest($13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::text[], $18::bytea[],
                $19::bigint[]) AS n(id, accepted, size, crc, envelope, body, about)
    WHERE EXISTS (SELECT FROM own) AND (n.about IS NULL OR n.about IN (SELECT id FROM changed))
    ON CONFLICT (id) DO NOTHING
    RETURNING id
)
SELECT id FROM changed UNION ALL SELECT id FROM added UNION ALL
SELECT 0 FROM head WHERE gatepost.require_changes(
    (SELECT count(*) FROM changed WHERE id = ANY($26::bigint[])) = cardinality($26::bigint[]))";
/// The error of [`BATCH`] if a message with evidence cannot be changed.
const NOT_MADE: &str = "GP001";
/// True if a run of a node is alive.
const IS_ALIVE: &str = "SELECT EXISTS (SELECT FROM gatepost.node
    WHERE number = $1 AND epoch = $2 AND NOT fenced AND lease_end > clock_timestamp())";

/// The owner and the epoch of each message that there is.
const OWNERS: &str = "SELECT id, node, epoch FROM gatepost.message WHERE id = ANY($1::bigint[])";

/// The columns of the parameters of [`BATCH`].
#[derive(Default)]
struct Columns<'a> {
    removed: (Vec<i64>, Vec<i64>),
    replaced: (Vec<i64>, Vec<i64>, Vec<&'a str>),
    locked: (Vec<i64>, Vec<i64>),
    parts: (Vec<i64>, Vec<i32>, Vec<&'a str>),
    ids: Vec<i64>,
    accepted: Vec<i64>,
    sizes: Vec<i64>,
    crcs: Vec<i64>,
    envelopes: Vec<&'a str>,
    bodies: Vec<Option<&'a [u8]>>,
    about: Vec<Option<i64>>,
}

/// The effect of a batch.
enum Effect {
    /// It was carried out for these messages.
    Done(HashSet<QueueId>),
    /// The chain was not extended, and nothing was carried out.
    NotExtended,
    /// A message with evidence could not be changed, and nothing was carried out.
    NotMade,
}

impl<'a> Columns<'a> {
    fn of(ops: &'a [SharedOp]) -> Self {
        let mut columns = Self::default();
        for op in ops {
            match op {
                SharedOp::Commit(row, _) => columns.add(row, None),
                SharedOp::Settle(settled, _) => {
                    let (id, epoch) = (row_id(settled.claim.id()), settled.claim.epoch());
                    let epoch = i64::try_from(epoch.number()).unwrap_or(i64::MAX);
                    match &settled.edit {
                        None => {
                            columns.removed.0.push(id);
                            columns.removed.1.push(epoch);
                        }
                        Some(EnvelopeEdit::Unit(text)) => {
                            columns.replaced.0.push(id);
                            columns.replaced.1.push(epoch);
                            columns.replaced.2.push(text);
                        }
                        Some(EnvelopeEdit::Parts(parts)) => {
                            columns.locked.0.push(id);
                            columns.locked.1.push(epoch);
                            for part in parts {
                                columns.parts.0.push(id);
                                // A message has far fewer recipients than an integer has values.
                                let number = i32::try_from(part_number(part.place));
                                columns.parts.1.push(number.unwrap_or(i32::MAX));
                                columns.parts.2.push(&part.json);
                            }
                        }
                    }
                    for report in &settled.reports {
                        columns.add(report, Some(id));
                    }
                }
                SharedOp::Ping(_) => {}
            }
        }
        columns
    }

    fn add(&mut self, row: &'a NewRow, about: Option<i64>) {
        self.ids.push(row_id(row.id));
        self.accepted.push(row.accepted);
        // Sizes are checked where the row is made.
        self.sizes.push(i64::try_from(row.size).unwrap_or(i64::MAX));
        self.crcs.push(i64::from(row.crc));
        self.envelopes.push(&row.envelope);
        self.bodies.push(row.body.as_deref());
        self.about.push(about);
    }

    async fn run(
        &self,
        connection: &LentConnection,
        run: NodeRun,
        evidence: Option<&BatchEvidence<'_>>,
    ) -> Result<Effect, DatabaseError> {
        let statement = connection.prepare_cached(BATCH).await?;
        let epoch = run.epoch();
        let extension = evidence.map(BatchEvidence::extension);
        let chain = extension.map(|extension| extension.chain);
        let (from, to) = (extension.map(|it| it.from), extension.map(|it| it.to));
        let seq = |head: Option<ChainHead>| head.map(|head| number(head.seq));
        let hash = |head: Option<ChainHead>| head.map(|head| head.hash.to_string());
        let (from_seq, from_hash, to_seq, to_hash) = (seq(from), hash(from), seq(to), hash(to));
        let lines = extension.map_or_else(Vec::new, ChainExtension::lines);
        let recorded: Vec<_> = evidence
            .map(|evidence| evidence.messages().map(row_id).collect())
            .unwrap_or_default();
        let parameters: [&(dyn ToSql + Sync); 26] = [
            &run.number,
            &epoch,
            &self.removed.0,
            &self.removed.1,
            &self.replaced.0,
            &self.replaced.1,
            &self.replaced.2,
            &self.locked.0,
            &self.locked.1,
            &self.parts.0,
            &self.parts.1,
            &self.parts.2,
            &self.ids,
            &self.accepted,
            &self.sizes,
            &self.crcs,
            &self.envelopes,
            &self.bodies,
            &self.about,
            &chain,
            &from_seq,
            &from_hash,
            &to_seq,
            &to_hash,
            &lines,
            &recorded,
        ];
        let rows = match connection.query(&statement, &parameters).await {
            Ok(rows) => rows,
            Err(error) if error.code().is_some_and(|code| code.code() == NOT_MADE) => {
                return Ok(Effect::NotMade);
            }
            Err(error) => return Err(error.into()),
        };
        let rows: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        if evidence.is_some() && !rows.contains(&0) {
            return Ok(Effect::NotExtended);
        }
        Ok(Effect::Done(
            rows.into_iter().filter_map(queue_id).collect(),
        ))
    }
}

/// The result of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpResult {
    /// It was carried out, now or by an earlier try. New messages have this epoch.
    Done(OwnerEpoch),
    /// The message is not in the queue.
    Missing(QueueId),
    /// The message has another owner.
    OfAnother(QueueId),
    /// The epoch of this node is over; nothing was changed.
    EpochOver,
    /// Nothing of the batch was carried out; it is tried again.
    Again,
}

/// Carries out operations in one transaction. With `is_repeated`, an earlier try may have been carried
/// out although its answer did not come.
pub(super) async fn carry_out(
    connection: &LentConnection,
    chain: &SharedChain,
    run: NodeRun,
    ops: &[SharedOp],
    is_repeated: bool,
) -> Result<Vec<OpResult>, DatabaseError> {
    if ops.iter().all(|op| matches!(op, SharedOp::Ping(_))) {
        connection.batch_execute("SELECT 1").await?;
        return Ok(vec![OpResult::Done(run.epoch); ops.len()]);
    }
    let mut evidence = BatchEvidence::of(ops, chain, connection).await?;
    let columns = Columns::of(ops);
    let effect = columns.run(connection, run, evidence.as_ref()).await;
    let effect = match effect {
        // The outcome is unknown.
        Err(error @ DatabaseError::Unreachable(_)) => return Err(error),
        effect => effect,
    };
    let messages: HashSet<_> = evidence.iter().flat_map(BatchEvidence::messages).collect();
    // Of a change whose records are not in the chain, no earlier try was carried out.
    let judge = |op: &SharedOp, found: &Owners| {
        let is_new = op.subject().is_some_and(|id| messages.contains(&id));
        explain(op, run, found, is_repeated && !is_new)
    };
    let affected = match effect {
        Ok(Effect::Done(affected)) => {
            if let Some(evidence) = evidence.take() {
                evidence.stored();
            }
            affected
        }
        effect => {
            if let Some(evidence) = &mut evidence {
                evidence.not_stored();
            }
            let is_refused = matches!(effect?, Effect::NotMade);
            if let Some(evidence) = &mut evidence {
                evidence.read_head(connection).await?;
            }
            let is_alive = is_alive(connection, run).await?;
            let found = owners(connection, &ops.iter().collect::<Vec<_>>()).await?;
            let result = |op: &SharedOp| {
                let is_recorded = op.subject().is_some_and(|id| messages.contains(&id));
                match judge(op, &found) {
                    _ if is_alive && !(is_refused && is_recorded) => OpResult::Again,
                    OpResult::EpochOver if is_alive => OpResult::Again,
                    result => result,
                }
            };
            return Ok(ops.iter().map(result).collect());
        }
    };
    let unclear: Vec<_> = ops
        .iter()
        .filter(|op| !is_complete(op, &affected))
        .collect();
    if unclear.is_empty() {
        return Ok(vec![OpResult::Done(run.epoch); ops.len()]);
    }
    let found = owners(connection, &unclear).await?;
    let result = |op: &SharedOp| {
        if is_complete(op, &affected) {
            return OpResult::Done(run.epoch);
        }
        judge(op, &found)
    };
    Ok(ops.iter().map(result).collect())
}

/// Returns whether an operation was carried out whole, if these messages were changed.
fn is_complete(op: &SharedOp, affected: &HashSet<QueueId>) -> bool {
    match op {
        SharedOp::Commit(row, _) => affected.contains(&row.id),
        SharedOp::Settle(settled, _) => {
            let mut reports = settled.reports.iter();
            affected.contains(&settled.claim.id())
                && reports.all(|report| affected.contains(&report.id))
        }
        SharedOp::Ping(_) => true,
    }
}

async fn is_alive(client: &Client, run: NodeRun) -> Result<bool, DatabaseError> {
    let row = client
        .query_one(IS_ALIVE, &[&run.number, &run.epoch()])
        .await?;
    Ok(row.get(0))
}

/// The owners and epochs of messages, by their ids.
type Owners = HashMap<QueueId, (i16, OwnerEpoch)>;

async fn owners(client: &Client, ops: &[&SharedOp]) -> Result<Owners, DatabaseError> {
    let mut ids = Vec::new();
    for op in ops {
        match op {
            SharedOp::Commit(row, _) => ids.push(row_id(row.id)),
            SharedOp::Settle(settled, _) => {
                ids.push(row_id(settled.claim.id()));
                ids.extend(settled.reports.iter().map(|report| row_id(report.id)));
            }
            SharedOp::Ping(_) => {}
        }
    }
    let rows = client.query(OWNERS, &[&ids]).await?;
    let owner = |row: &tokio_postgres::Row| {
        let epoch = u64::try_from(row.get::<_, i64>(2)).ok()?;
        let owner = (row.get(1), OwnerEpoch::of_store(epoch));
        Some((queue_id(row.get(0))?, owner))
    };
    Ok(rows.iter().filter_map(owner).collect())
}

/// Finds out why an operation affected nothing.
fn explain(op: &SharedOp, run: NodeRun, found: &Owners, is_repeated: bool) -> OpResult {
    match op {
        SharedOp::Ping(_) => OpResult::Done(run.epoch),
        SharedOp::Commit(row, _) => match found.get(&row.id) {
            Some((node, epoch)) if *node == run.number && is_repeated => OpResult::Done(*epoch),
            _ => OpResult::EpochOver,
        },
        SharedOp::Settle(settled, _) => {
            let id = settled.claim.id();
            let mut reports = settled.reports.iter().map(|report| found.get(&report.id));
            // All of it is stored, or nothing: one report shows that an earlier try was carried out.
            if let Some(Some((_, epoch))) = reports.next().filter(|_| is_repeated) {
                return OpResult::Done(*epoch);
            }
            let is_removal = settled.edit.is_none() && settled.reports.is_empty();
            match found.get(&id) {
                None if is_repeated && is_removal => OpResult::Done(run.epoch),
                None => OpResult::Missing(id),
                Some(owner) if *owner == (run.number, settled.claim.epoch()) => OpResult::EpochOver,
                Some(_) => OpResult::OfAnother(id),
            }
        }
    }
}
