//! The bare rate of the disk: one file to which records are appended, with one `fdatasync` for all
//! that are waiting. No relay that keeps its promise is faster than this.

use std::fs::File;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use crate::message;
use crate::trial::{CONNECTIONS, folder};

const TIME: Duration = Duration::from_secs(2);

/// Returns the messages per second that the disk makes durable if each sync serves all connections.
///
/// # Errors
/// Those of the disk.
pub(crate) fn bare_rate() -> io::Result<f64> {
    let folder = folder()?;
    let mut file = File::create(folder.path().join("bare"))?;
    let records = vec![b'x'; CONNECTIONS * message::SMALL];
    let (start, mut syncs) = (Instant::now(), 0_u32);
    while start.elapsed() < TIME {
        file.write_all(&records)?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(f64::from(syncs) * CONNECTIONS as f64 / start.elapsed().as_secs_f64())
}
