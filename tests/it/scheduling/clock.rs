//! A clock that jumps while the relay runs.

use std::sync::Arc;

use gatepost::smtp::envelope::RecipientState;
use jiff::Timestamp;

use super::orders::eventually;
use super::owed::Queue;
use crate::support::in_process::{configured, connector, peer, willing};

/// It was accepted by one clock, and is taken up by another: it is as new as it is.
#[tokio::test]
async fn a_clock_that_jumps_ahead_ages_nothing_that_has_just_come_in() {
    let (home, busy) = (
        willing().await,
        peer(&[], &[("RCPT", "451 4.2.1 later")]).await,
    );
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let before = "[queue]\nretry = [\"100ms\"]\nexpire = \"1h\"\n";
    let connectors = [connector("busy.example", busy.address, "")];
    let config = Arc::new(configured(folder.path(), home.address, before, &connectors));
    let queue = Queue::start(folder.path(), &config, &config);
    let id = queue
        .takes_at("b@busy.example", None, Timestamp::UNIX_EPOCH)
        .await;
    let is_retried = async || {
        let recipient = queue
            .recipient(id)
            .await
            .expect("it waits: its time is not over");
        matches!(
            recipient.state,
            RecipientState::Pending { attempts: 2.., .. }
        )
    };
    eventually("it was tried a second time", is_retried).await;
    assert!(home.messages().is_empty(), "nothing was said of it");
    queue.ends().await;
}
