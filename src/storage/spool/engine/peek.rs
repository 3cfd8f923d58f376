//! The queue as it lies on disk, for tools that look at it from outside. A relay may be running on
//! it.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::{SpoolError, StoredMessage};
use super::image::{ImageAccess, SpoolImage};
use super::paths::SpoolPaths;

/// Reads the messages of the spool in `folder` without their content, in the order of their ids.
/// Changes nothing, and leaves out what is damaged. Blocks.
///
/// # Errors
/// [`SpoolError::Io`] if a file cannot be read.
pub fn read_queue(folder: &Path) -> Result<Vec<StoredMessage>, SpoolError> {
    let image = SpoolImage::open(SpoolPaths::new(folder), ImageAccess::Shared)?;
    if let Some(fault) = &image.database_fault {
        let file = image.paths.database.display();
        return Err(SpoolError::Io(format!("{file} is damaged: {fault}")));
    }
    let mut queue = BTreeMap::new();
    image.each(|entry| {
        if let Ok(stored) = entry.head {
            queue.insert(stored.id, stored);
        }
        Ok::<_, SpoolError>(())
    })?;
    Ok(queue.into_values().collect())
}
