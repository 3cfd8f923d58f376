//! The evidence: its size and its limit, and the removal of archived days.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, State};
use axum::http::StatusCode;

use super::api::evidence::{ClosedDay, EvidenceStatus};
use super::state::{AdminState, ErrorResponse, PeerUid};
use crate::storage::evidence::{ArchiveError, ArchivedDays, EvidenceLevel};
use crate::telemetry::EvidenceReading;

/// Returns the size of the evidence and its limit; `None` if none is kept.
pub(super) fn status(admin: &AdminState) -> Option<EvidenceStatus> {
    let usage = admin.evidence.usage()?;
    Some(EvidenceStatus {
        octets: usage.octets,
        max_octets: usage.max,
        percent: usage.percent(),
        level: usage.level().as_str().to_owned(),
        rejects_mail: usage.level() >= EvidenceLevel::RejectsMail,
        stuck: admin.evidence.is_stuck(),
    })
}

/// Returns the values for the metrics.
pub(super) fn reading(admin: &AdminState) -> Option<EvidenceReading> {
    status(admin).map(|status| EvidenceReading {
        octets: status.octets,
        max_octets: status.max_octets,
        rejects_mail: status.rejects_mail,
        stuck: status.stuck,
    })
}

/// `POST /v1/evidence/close-day`: closes the newest day, so that it can be archived.
pub(super) async fn close_day(
    State(admin): State<AdminState>,
    Extension(PeerUid(uid)): Extension<PeerUid>,
) -> Result<Json<ClosedDay>, ErrorResponse> {
    let day = admin.evidence.close_day().await?;
    tracing::info!(day = ?day.map(|day| day.to_string()), uid = ?uid, "end of the present day of evidence ordered by an operator");
    Ok(Json(ClosedDay { day }))
}

/// `POST /v1/evidence/archived`: removes days that the command has archived.
pub(super) async fn remove_archived(
    State(admin): State<AdminState>,
    Extension(PeerUid(uid)): Extension<PeerUid>,
    request: Result<Json<ArchivedDays>, JsonRejection>,
) -> Result<Json<Option<EvidenceStatus>>, ErrorResponse> {
    let Json(archived) =
        request.map_err(|rejection| ErrorResponse(rejection.status(), rejection.body_text()))?;
    tracing::info!(archive = %archived.archive.display(), until = %archived.until, uid = ?uid, "removal of archived evidence ordered by an operator");
    admin.evidence.remove_archived(archived).await?;
    Ok(Json(status(&admin)))
}

impl From<ArchiveError> for ErrorResponse {
    fn from(error: ArchiveError) -> Self {
        let status = match &error {
            ArchiveError::Stopping => return Self::stopping(),
            ArchiveError::Changed => StatusCode::CONFLICT,
            ArchiveError::Evidence(_)
            | ArchiveError::SameFolder(_)
            | ArchiveError::Differs { .. }
            | ArchiveError::Damaged(_)
            | ArchiveError::InUse(_)
            | ArchiveError::InDatabase => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}
