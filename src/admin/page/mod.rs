//! The status page: one HTML page, rendered from [`RelayStatus`] alone, without scripts and without
//! external resources.
//!
//! Its Content-Security-Policy allows its own style sheet, by hash, and nothing more. Names, order
//! and contrast follow WCAG 2.2.

mod chart;
mod crls;
mod html;
mod recipients;
mod sections;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::api::status::RelayStatus;
use super::state::{AdminState, ErrorResponse};
use super::status;
use html::Html;

const STYLE: &str = include_str!("style.css");

/// `GET /`.
pub(super) async fn page(State(admin): State<AdminState>) -> Result<Response, ErrorResponse> {
    let status = status::collect(&admin).await?;
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, content_security_policy()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, render(&status)).into_response())
}

fn content_security_policy() -> String {
    let hash = STANDARD.encode(aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        STYLE.as_bytes(),
    ));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    )
}

fn render(status: &RelayStatus) -> String {
    let mut html = Html::default();
    html.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    // An empty icon, so that the browser requests none.
    html.raw("<link rel=\"icon\" href=\"data:,\">");
    html.element(
        "<title>",
        &format!("{} – Gatepost", status.hostname),
        "</title><style>",
    )
    .raw(STYLE);
    html.raw("</style></head><body>\n");
    sections::header(&mut html, status);
    html.raw("<main>\n");
    sections::alarms(&mut html, status);
    sections::queue(&mut html, status);
    sections::troubles(&mut html, status);
    recipients::section(&mut html, status);
    sections::downgrades(&mut html, status);
    sections::connectors(&mut html, status);
    sections::certificates(&mut html, status);
    crls::section(&mut html, status);
    sections::exceptions(&mut html, status);
    sections::clients(&mut html, status);
    sections::refusals(&mut html, status);
    html.raw("</main>\n<footer><p>As of ")
        .time(status.at)
        .raw(". For monitoring: <a href=\"/metrics\">metrics</a>, ");
    html.raw("<a href=\"/healthz\">health</a>, <a href=\"/readyz\">readiness</a>.</p></footer>\n</body></html>\n");
    html.into_string()
}

#[cfg(test)]
mod tests;
