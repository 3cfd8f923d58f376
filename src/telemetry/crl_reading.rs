//! The metrics of certificate revocation lists, which are read on request.

use std::collections::BTreeMap;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{CrlSourceLabel, FetchResultLabel};

/// The CRLs in use, and the fetches of those of distribution points.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CrlReadings {
    /// The CRLs.
    pub crls: Vec<CrlReading>,
    /// The fetches that succeeded since the start.
    pub fetched: u64,
    /// The fetches that failed since the start.
    pub failed: u64,
}

/// One CRL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlReading {
    /// The file, or the host of the distribution point.
    pub source: String,
    /// The time at which it was issued.
    pub this_update: Timestamp,
    /// The time from which it has expired.
    pub next_update: Timestamp,
}

/// Adds the metrics. Of several CRLs of one source, that counts which expires first, so that there
/// are no more labels than files and hosts.
pub(super) fn register(registry: &mut Registry, readings: &CrlReadings) {
    let mut first = BTreeMap::<&str, &CrlReading>::new();
    for crl in &readings.crls {
        let known = first.entry(&crl.source).or_insert(crl);
        if crl.next_update < known.next_update {
            *known = crl;
        }
    }
    let mut family = |name: &str, help: &str, time: fn(&CrlReading) -> Timestamp| {
        let family = Family::<CrlSourceLabel, Gauge>::default();
        for (source, crl) in &first {
            let source = (*source).to_owned();
            family
                .get_or_create(&CrlSourceLabel { source })
                .set(time(crl).as_second());
        }
        registry.register_with_unit(name, help, Unit::Seconds, family);
    };
    let help = "Time at which the CRL was issued that expires first, by file or host";
    family("crl_issued_timestamp", help, |crl| crl.this_update);
    let help = "Time from which the CRL has expired that expires first, by file or host";
    family("crl_expiry_timestamp", help, |crl| crl.next_update);
    let fetches = Family::<FetchResultLabel, Counter>::default();
    for (result, count) in [("fetched", readings.fetched), ("failed", readings.failed)] {
        fetches
            .get_or_create(&FetchResultLabel { result })
            .inc_by(count);
    }
    let help = "Fetches of CRLs from distribution points, by result";
    registry.register("crl_fetches", help, fetches);
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn each_source_has_the_times_of_its_first_crl_to_expire() {
        let crl = |source: &str, issued, expires| CrlReading {
            source: source.to_owned(),
            this_update: Timestamp::from_second(issued).expect("a time"),
            next_update: Timestamp::from_second(expires).expect("a time"),
        };
        let readings = CrlReadings {
            crls: vec![
                crl("partner.crl", 10, 90),
                crl("partner.crl", 20, 50),
                crl("crl.partner.example", 30, 60),
            ],
            fetched: 5,
            failed: 2,
        };
        let (mut registry, mut text) = (Registry::default(), String::new());
        register(&mut registry, &readings);
        encode(&mut text, &registry).expect("a string takes all");
        let mut values: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        values.sort_unstable();
        assert_eq!(
            values,
            [
                "crl_expiry_timestamp_seconds{source=\"crl.partner.example\"} 60",
                "crl_expiry_timestamp_seconds{source=\"partner.crl\"} 50",
                "crl_fetches_total{result=\"failed\"} 2",
                "crl_fetches_total{result=\"fetched\"} 5",
                "crl_issued_timestamp_seconds{source=\"crl.partner.example\"} 30",
                "crl_issued_timestamp_seconds{source=\"partner.crl\"} 20",
            ]
        );
    }
}
