//! The readiness of the relay, for `/readyz` and `gatepost status --ready`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;

use super::api::status::{AttemptsStatus, Readiness};
use super::state::AdminState;
use super::{database, status};
use crate::relay::scheduler::Share;

/// The time in which the scheduler must answer.
const READY_TIME: Duration = Duration::from_secs(2);

/// Answers `GET /v1/ready`.
pub(super) async fn show(State(admin): State<AdminState>) -> Json<Readiness> {
    Json(readiness(&admin).await)
}

/// Reports whether mail is accepted and delivered: the spool is this relay's and can be written (a
/// full disk is reported elsewhere), the queue has been read,
/// the scheduler answers, and mail to destinations that connectors name goes out. Full use of
/// the attempts for destinations by MX is only reported: strangers' servers that hang must not take
/// the relay out of service.
pub(super) async fn readiness(admin: &AdminState) -> Readiness {
    if let Err(error) = admin.spool.lease().check() {
        return not_ready(error.to_string());
    }
    if let Some(trouble) = database::trouble(&*admin.spool) {
        return not_ready(trouble);
    }
    match tokio::time::timeout(READY_TIME, admin.operator.status(Vec::new())).await {
        Ok(Some(_)) => of_attempts(&status::attempts(admin)),
        Ok(None) => stopping(),
        Err(_) => {
            not_ready("the queue is still being read, or the scheduler does not answer".to_owned())
        }
    }
}

/// Returns the readiness of a daemon that is stopping.
pub(super) fn stopping() -> Readiness {
    not_ready("stopping".to_owned())
}

fn not_ready(reason: String) -> Readiness {
    Readiness {
        ready: false,
        reasons: vec![reason],
    }
}

fn of_attempts(attempts: &[AttemptsStatus]) -> Readiness {
    let full = attempts.iter().filter(|share| share.is_full());
    let mut readiness = Readiness {
        ready: true,
        reasons: Vec::new(),
    };
    for share in full {
        if share.share == Share::Named.name() {
            readiness.ready = false;
        }
        let (destinations, waiting) = (share.destinations(), share.waiting);
        readiness.reasons.push(format!(
            "all delivery attempts for {destinations} are in use; {waiting} destinations wait"
        ));
    }
    readiness
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(share: &str, waiting: u64, full_seconds: Option<u64>) -> AttemptsStatus {
        AttemptsStatus {
            share: share.to_owned(),
            most: 800,
            running: 800,
            slow: 700,
            waiting,
            full_seconds,
        }
    }

    #[test]
    fn readiness_reports_full_use_of_the_attempts() {
        let (named, by_mx) = (share("named", 2, Some(60)), share("mx", 9, Some(60)));
        for (shares, ready, text) in [
            (vec![], true, "ready\n"),
            (
                vec![share("named", 0, None), share("mx", 5, Some(59))],
                true,
                "ready\n",
            ),
            (
                vec![by_mx.clone()],
                true,
                "ready\nall delivery attempts for destinations by MX are in use; 9 destinations wait\n",
            ),
            (
                vec![named, by_mx],
                false,
                "all delivery attempts for named connectors and smart hosts are in use; 2 destinations wait\n\
                 all delivery attempts for destinations by MX are in use; 9 destinations wait\n",
            ),
        ] {
            let readiness = of_attempts(&shares);
            assert_eq!((readiness.ready, readiness.text().as_str()), (ready, text));
        }
    }
}
