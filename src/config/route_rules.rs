//! Rules between `route` and the TLS of a `[connector.outbound]` table.

use super::connector_toml::{OutboundToml, RouteToml};
use super::fault_list::FaultList;
use super::tls_level::WrittenTlsLevel;
use crate::policy::connector::{HopProtocol, SmartHost};
use crate::policy::location::Located;

/// Rejects smart hosts whose kind of connection does not go with `tls`.
pub(super) fn check_route_tls(outbound: &OutboundToml, faults: &mut FaultList<'_>) {
    let Some(RouteToml::SmartHosts(hosts)) = outbound.route.value() else {
        return;
    };
    let tls = outbound.tls.resolve(WrittenTlsLevel::Opportunistic);
    for host in hosts {
        match (&host.value.protocol, tls) {
            (HopProtocol::LmtpSocket(_), Some(WrittenTlsLevel::Forced)) => {
                reject_forced_socket(host, faults);
            }
            (HopProtocol::Smtps, Some(WrittenTlsLevel::Off)) => reject_smtps_off(host, faults),
            (HopProtocol::Smtps, _) => {
                let exception = outbound.exception.value();
                if let Some(exception) =
                    exception.filter(|exception| exception.tls == WrittenTlsLevel::Off)
                {
                    let message = format!(
                        "{} has TLS from the first octet, also with tls = \"off\"",
                        host.value
                    );
                    let remedy = "Write tls = \"opportunistic\" in the exception.";
                    faults.add(&exception.tls_location, message, remedy);
                }
            }
            (HopProtocol::Smtp | HopProtocol::Lmtp | HopProtocol::LmtpSocket(_), _) => {}
        }
    }
}

fn reject_forced_socket(host: &Located<SmartHost>, faults: &mut FaultList<'_>) {
    let message = format!(
        "{}: tls = \"forced\" can never be met: there is no TLS on a unix socket",
        host.value
    );
    let remedy = "Write tls = \"off\" or \"opportunistic\" for it, or \"lmtp://host:24\" for a server with STARTTLS.";
    faults.add(&host.location, message, remedy);
}

fn reject_smtps_off(host: &Located<SmartHost>, faults: &mut FaultList<'_>) {
    let message = format!(
        "{} has TLS from the first octet, but tls = \"off\"",
        host.value
    );
    let remedy =
        "Write tls = \"opportunistic\" or \"forced\", or the host and port without smtps://.";
    faults.add(&host.location, message, remedy);
}
