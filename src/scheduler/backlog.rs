//! What an earlier run left in the spool, on its way into the queue.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::spool::{SpoolError, Stored};

/// Entries that are taken from the spool at a time.
const PAGE: usize = 1000;

impl super::Scheduler {
    /// Reads what an earlier run left, page by page. Ids only grow, so whatever is accepted from now
    /// on has a larger one and comes in through `accepted` alone.
    pub(super) fn read_spool(&self) -> mpsc::Receiver<Result<Vec<Stored>, SpoolError>> {
        let (sender, pages) = mpsc::channel(1);
        let spool = Arc::clone(&self.context.spool);
        let first_new = self.first_new;
        tokio::spawn(async move {
            let mut after = None;
            loop {
                let page = spool.scan(after, PAGE).await.map(|mut page| {
                    page.retain(|stored| stored.id < first_new);
                    page
                });
                after = page.as_ref().ok().and_then(|page| page.last()).map(|stored| stored.id);
                // An empty page is the end; an error is told, and is the end too.
                if page.as_ref().is_ok_and(Vec::is_empty) || sender.send(page).await.is_err() || after.is_none() {
                    return;
                }
            }
        });
        pages
    }
}
