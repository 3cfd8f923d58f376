//! The servers that are asked about recipients.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::net::ldap::Directory;
use crate::relay::outbound::Outbound;
use crate::relay::recipient_tables::{
    AnswerResult, RecipientAnswer, RecipientTable, RecipientTrouble, TroubleScope, no_such_mailbox,
};
use crate::relay::recipients::MailboxServers;
use crate::relay::running_config::Snapshot;
use crate::smtp::address::Mailbox;

/// Asks mailbox servers by their connectors, and directories.
pub(super) struct ConnectorServers(pub(super) Arc<Outbound>);

impl MailboxServers for ConnectorServers {
    fn ask(
        &self,
        snapshot: Arc<Snapshot>,
        table: Arc<RecipientTable>,
        mailbox: Mailbox,
    ) -> BoxFuture<'static, AnswerResult> {
        let outbound = Arc::clone(&self.0);
        Box::pin(async move {
            match table.directory() {
                Some(directory) => {
                    let plus_tags = table.rules().plus_tags;
                    search(directory, &snapshot, &mailbox, plus_tags).await
                }
                None => outbound.ask(&snapshot, &mailbox).await,
            }
        })
    }
}

/// Searches a directory for a mailbox.
async fn search(
    directory: &Directory,
    snapshot: &Snapshot,
    mailbox: &Mailbox,
    plus_tags: bool,
) -> AnswerResult {
    let dns = snapshot.router.dns();
    match directory.has(dns, mailbox, plus_tags).await {
        Ok(true) => Ok(RecipientAnswer::Exists),
        Ok(false) => Ok(RecipientAnswer::Unknown(no_such_mailbox())),
        Err(error) => Err(RecipientTrouble {
            reason: format!("{}: {error}", directory.url()).into(),
            scope: if error.is_general() {
                TroubleScope::Source
            } else {
                TroubleScope::Mailbox
            },
        }),
    }
}
