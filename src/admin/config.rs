//! `/v1/config`: the configuration in use, as it was read.
//!
//! It holds no secrets: it only names the files of keys.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Json;
use axum::extract::State;

use super::api::RunningConfigText;
use super::state::AdminState;

pub(super) async fn show_running(State(admin): State<AdminState>) -> Json<RunningConfigText> {
    let config = &admin.running.load().config;
    let written = &config.source;
    // The client runs in another folder.
    let file = std::path::absolute(&written.file).unwrap_or_else(|_| written.file.to_path_buf());
    let hash = digest(&SHA256, written.text.as_bytes());
    let mut sha256 = String::new();
    for octet in hash.as_ref() {
        // Writing into a String cannot fail.
        let _ = write!(sha256, "{octet:02x}");
    }
    Json(RunningConfigText {
        file,
        sha256,
        text: written.text.to_string(),
    })
}
