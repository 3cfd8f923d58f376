//! The metrics and checks of the daemon: a round of checks every minute.

use std::sync::Arc;

use jiff::Timestamp;

use super::reload::ConfiguredServices;
use crate::config::{Config, Connector, TlsDemand};
use crate::relay::inbound::Clients;
use crate::smtp::sasl::{Mechanism, TokenMechanism};
use crate::telemetry::SAVE_INTERVAL;
use crate::telemetry::certificates::OwnCertificate;
use crate::telemetry::labels::Direction;

/// Runs every minute: logs suppressed lines, checks certificates, and saves the state of the
/// monitor.
pub(super) async fn round(configured: Arc<ConfiguredServices>, clients: Clients) {
    loop {
        check_certificates(&configured);
        save(&configured).await;
        tokio::time::sleep(SAVE_INTERVAL).await;
        configured.monitor.log_suppressed();
        clients.announce_releases(&configured.monitor, &configured.config());
    }
}

fn check_certificates(configured: &ConfiguredServices) {
    let own = configured.tls().identities().into_iter();
    let own: Vec<OwnCertificate> = own
        .map(|own| OwnCertificate {
            file: own.file.display().to_string(),
            not_after: own.not_after,
        })
        .collect();
    let settings = configured.running.load();
    let config = &settings.config;
    let any = std::iter::once(settings.connectors.catch_all());
    configured.monitor.prepare(
        config
            .listeners
            .iter()
            .map(|listener| listener.name.as_str()),
        config
            .connectors
            .iter()
            .chain(any)
            .map(|connector| connector.name.as_str()),
    );
    let with_login = |connector: &&Arc<Connector>| connector.outbound.auth.is_some();
    for connector in config.connectors.iter().filter(with_login) {
        let passwords = Mechanism::ALL.into_iter().map(Mechanism::name);
        let tokens = TokenMechanism::ALL.into_iter().map(TokenMechanism::name);
        let name = &connector.name;
        configured
            .monitor
            .prepare_logins(name, passwords.chain(tokens));
    }
    configured.monitor.certificates().warn_expiring(
        &own,
        |direction, name| is_forced(config, direction, name),
        Timestamp::now(),
    );
}

/// Returns true if a connector demands TLS. Demands that only a domain publishes do not count.
fn is_forced(config: &Config, direction: Direction, name: &str) -> bool {
    config
        .connectors
        .iter()
        .filter(|connector| connector.name == name)
        .any(|connector| {
            let demand = match direction {
                Direction::Inbound => &connector.inbound.tls,
                Direction::Outbound => &connector.outbound.tls,
            };
            matches!(demand, TlsDemand::Forced { .. })
        })
}

/// Saves the state of the monitor for the next run.
pub(super) async fn save(configured: &ConfiguredServices) {
    let (monitor, folder) = (
        configured.monitor.clone(),
        configured.config().spool.value.clone(),
    );
    // Fails only while the runtime shuts down.
    let _ = tokio::task::spawn_blocking(move || monitor.save(&folder)).await;
}
