//! The notice to the postmaster about a user that has reached a limit: a device that has gone mad, or
//! a stolen password.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::Inbound;
use crate::config::{Config, MailUser};
use crate::relay::users::HourlyLimitReached;
use crate::smtp::dsn::{self, UserNotice};
use crate::storage::spool::SpoolError;

/// Writes and queues the notice, while the session goes on.
pub(super) fn send(
    inbound: &Arc<Inbound>,
    config: &Arc<Config>,
    user: &MailUser,
    reached: &HourlyLimitReached,
    peer: IpAddr,
) {
    let (inbound, config) = (Arc::clone(inbound), Arc::clone(config));
    let (user, reached) = (user.name.clone(), *reached);
    tokio::spawn(async move {
        if let Err(error) = store(&inbound, &config, &user, &reached, peer).await {
            tracing::error!(user, %error, "cannot store the notice to the postmaster about a user that reached a limit");
        }
    });
}

async fn store(
    inbound: &Inbound,
    config: &Config,
    user: &str,
    reached: &HourlyLimitReached,
    peer: IpAddr,
) -> Result<(), SpoolError> {
    let mut draft = inbound.spool.draft_report();
    let notice = UserNotice {
        user,
        limit: reached.rate.key(),
        noun: reached.rate.noun(),
        most: reached.most,
        peer,
    };
    let to = &config.postmaster;
    let report =
        dsn::write_user_notice(&config.hostname, Timestamp::now(), to, &notice, draft.id());
    draft.write(&report.content).await?;
    let (receipt, entry) = inbound.spool.commit(draft, report.envelope).await?;
    tracing::warn!(user, queue_id = %receipt.id(), %to, "notice about a user that reached a limit queued for the postmaster");
    // If the scheduler has ended, the message waits in the spool for the next start.
    let _ = inbound.accepted.send(entry).await;
    Ok(())
}
