//! `/v1/reload`: the order to read the configuration again.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::api::ReloadOutcome;
use super::reload_order::ReloadOrder;
use super::state::{AdminState, ErrorResponse, PeerUid};

pub(super) async fn reload(
    State(admin): State<AdminState>,
    Extension(PeerUid(uid)): Extension<PeerUid>,
) -> Result<Json<ReloadOutcome>, ErrorResponse> {
    let (outcome, reported) = oneshot::channel();
    let fixed = || {
        ErrorResponse(
            StatusCode::SERVICE_UNAVAILABLE,
            "this daemon does not read its configuration again, or it is stopping".to_owned(),
        )
    };
    let orders = admin.reload_orders.as_ref().ok_or_else(fixed)?;
    tracing::info!(uid = ?uid, "an operator orders a reload");
    orders
        .send(ReloadOrder::new(outcome))
        .await
        .map_err(|_| fixed())?;
    reported.await.map(Json).map_err(|_| fixed())
}
