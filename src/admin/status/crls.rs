//! The certificate revocation lists.

use crate::admin::api::status::CrlStatus;
use crate::net::revocation::PointSummary;
use crate::relay::running_config::Snapshot;
use crate::telemetry::{CrlReading, CrlReadings};

/// Returns the CRLs of files, and then those of distribution points, for status and page.
pub(super) fn statuses(settings: &Snapshot) -> Vec<CrlStatus> {
    let files = settings.tls.crl_files().into_iter().map(|crl| CrlStatus {
        source: crl.file.display().to_string(),
        in_use: true,
        issuer: Some(crl.issuer),
        entries: crl.entries,
        this_update: Some(crl.this_update),
        next_update: Some(crl.next_update),
        failure: None,
    });
    let points = settings.points.summaries().into_iter().map(of_point);
    files.chain(points).collect()
}

fn of_point(point: PointSummary) -> CrlStatus {
    let crl = point.crl.as_ref();
    CrlStatus {
        in_use: point.is_used,
        issuer: crl.map(|crl| crl.issuer.clone()),
        entries: crl.map_or(0, |crl| crl.entries),
        this_update: crl.map(|crl| crl.this_update),
        next_update: crl.map(|crl| crl.next_update),
        source: point.url,
        failure: point.failure,
    }
}

/// Returns the CRLs in use, for the metrics.
pub(super) fn readings(settings: &Snapshot) -> CrlReadings {
    let (fetched, failed) = settings.points.fetches();
    let files = settings.tls.crl_files().into_iter().map(|crl| CrlReading {
        source: crl.file.display().to_string(),
        this_update: crl.this_update,
        next_update: crl.next_update,
    });
    let points = settings.points.summaries().into_iter();
    let points = points.filter(|point| point.is_used).filter_map(|point| {
        let crl = point.crl?;
        Some(CrlReading {
            source: point.host,
            this_update: crl.this_update,
            next_update: crl.next_update,
        })
    });
    CrlReadings {
        crls: files.chain(points).collect(),
        fetched,
        failed,
    }
}
