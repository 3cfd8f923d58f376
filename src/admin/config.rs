//! `/v1/config`: the configuration in use, as it was read.
//!
//! It holds no secrets: it only names the files of keys.

use std::path::Path;

use axum::Json;
use axum::extract::State;

use super::api::{ConfigFileText, RunningConfigText};
use super::state::AdminState;

pub(super) async fn show_running(State(admin): State<AdminState>) -> Json<RunningConfigText> {
    let config = &admin.running.load().config;
    let written = &config.source;
    // The client runs in another folder.
    let absolute = |file: &Path| std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    let included = written.included.iter().map(|file| ConfigFileText {
        file: absolute(&file.file),
        text: file.text.to_string(),
    });
    Json(RunningConfigText {
        file: absolute(&written.file),
        sha256: written.digest.clone(),
        text: written.text.to_string(),
        included: included.collect(),
    })
}
