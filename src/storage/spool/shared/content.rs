//! Large content, which is in the database in pieces.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;

use super::super::SpoolError;
use super::super::body::PieceSource;
use super::super::file::{SpoolFuture, blocking, io_error};
use super::super::ids::row_id;
use super::core::SharedCore;
use crate::smtp::envelope::QueueId;
use crate::storage::postgresql::{DatabaseError, LentConnection};

/// The octets of a piece.
pub(super) const PIECE: usize = 256 * 1024;
/// The pieces that are sent in one transaction.
const PIECES_AT_ONCE: usize = 8;

const PUT: &str = "INSERT INTO gatepost.body (message, piece, octets)
SELECT $1, p.piece, p.octets FROM unnest($2::integer[], $3::bytea[]) AS p(piece, octets)
ON CONFLICT (message, piece) DO UPDATE SET octets = excluded.octets";
const GET: &str = "SELECT octets FROM gatepost.body WHERE message = $1 AND piece = $2";

/// Sends the content of a file, before its message is stored. The pieces need no commit of their own on
/// the disk: they are in the write-ahead log before the message, whose commit waits for both.
pub(super) async fn send(core: &SharedCore, id: QueueId, path: &Path) -> Result<(), SpoolError> {
    let opened = path.to_owned();
    let mut file =
        blocking(move || File::open(&opened).map_err(|error| io_error("open", &opened, &error)))
            .await?;
    // The semaphore is never closed.
    let _turn = core.uploads.acquire().await;
    let connection = core.connection().await?;
    let mut number = 0;
    loop {
        let name = path.to_owned();
        let (pieces, rest) = blocking(move || {
            let pieces = read_pieces(&mut file).map_err(|error| io_error("read", &name, &error));
            pieces.map(|pieces| (pieces, file))
        })
        .await?;
        file = rest;
        if pieces.is_empty() {
            break;
        }
        let numbers: Vec<i32> = (number..).take(pieces.len()).collect();
        number += i32::try_from(pieces.len()).unwrap_or_default();
        let put = put_pieces(&connection, id, &numbers, &pieces);
        put.await.map_err(|error| core.failed(&error))?;
    }
    connection.give_back();
    Ok(())
}

/// Stores pieces of a message's content, without a wait for the disk.
pub(super) async fn put_pieces(
    connection: &LentConnection,
    id: QueueId,
    numbers: &[i32],
    pieces: &[Vec<u8>],
) -> Result<(), DatabaseError> {
    let statement = connection.prepare_cached(PUT).await?;
    let asynchronous = "BEGIN; SET LOCAL synchronous_commit = off";
    connection.batch_execute(asynchronous).await?;
    connection
        .execute(&statement, &[&row_id(id), &numbers, &pieces])
        .await?;
    connection.batch_execute("COMMIT").await?;
    Ok(())
}

/// Reads the next pieces of a file.
fn read_pieces(file: &mut File) -> std::io::Result<Vec<Vec<u8>>> {
    let mut pieces = Vec::new();
    while pieces.len() < PIECES_AT_ONCE {
        let mut piece = Vec::with_capacity(PIECE);
        file.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            break;
        }
        pieces.push(piece);
    }
    Ok(pieces)
}

impl PieceSource for SharedCore {
    fn piece(&self, id: QueueId, number: u32) -> SpoolFuture<'static, Option<Bytes>> {
        let core = self.upgrade();
        Box::pin(async move {
            let core = core?;
            let connection = core.connection().await?;
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            let get = async {
                let statement = connection.prepare_cached(GET).await?;
                connection
                    .query_opt(&statement, &[&row_id(id), &number])
                    .await
            };
            let row = get.await.map_err(|error| core.failed(&error.into()))?;
            connection.give_back();
            Ok(row.map(|row| Bytes::from(row.get::<_, Vec<u8>>(0))))
        })
    }

    fn set_aside(&self, id: QueueId, fault: String) -> SpoolFuture<'static, SpoolError> {
        let core = self.upgrade();
        Box::pin(async move { core?.set_aside_content(id, fault).await })
    }
}
