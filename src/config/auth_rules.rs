//! Rules between `auth` and the other keys of a `[connector.outbound]` table.

use super::connector_toml::{OutboundToml, RouteToml};
use super::fault_list::FaultList;
use super::tls_level::WrittenTlsLevel;
use crate::policy::connector::VerifyWanted;
use crate::policy::location::Location;

/// Rejects a login where the password could go to a host that does not prove who it is, and warns of an
/// exception, during which no login is possible.
// Rule: RFC 4954 §14.
pub(super) fn check_auth(outbound: &OutboundToml, faults: &mut FaultList<'_>) {
    let Some(auth) = outbound.auth.located() else {
        return;
    };
    let (Some(tls), Some(verify)) = (
        outbound.tls.resolve(WrittenTlsLevel::Opportunistic),
        outbound.verify.resolve(VerifyWanted::None),
    ) else {
        return;
    };
    if let Some(why) = unproven(tls, verify) {
        faults.add(
            &auth.location,
            format!("auth would give the secret to anybody: {why}"),
            "Write tls = \"forced\" with verify = \"name\", \"pin\" or \"dane\" in this direction, or remove auth.",
        );
    }
    match outbound.route.resolve(RouteToml::Mx) {
        Some(RouteToml::Mx) => faults.add(
            &auth.location,
            "auth is the login at smart hosts, but route names none: the secret would go to every MX host",
            "Add route = [\"smtp.example.net:587\"] to this direction, or remove auth.",
        ),
        Some(RouteToml::SmartHosts(_)) | None => {}
    }
    warn_of_exception(&auth.location, outbound, faults);
}

/// Returns the reason why a demand does not prove who the host is.
fn unproven(tls: WrittenTlsLevel, verify: VerifyWanted) -> Option<&'static str> {
    match (tls, verify) {
        (WrittenTlsLevel::Off, _) => Some("with tls = \"off\" it crosses the network in the clear"),
        (WrittenTlsLevel::Opportunistic, _) => {
            Some("with tls = \"opportunistic\" no host has to prove who it is")
        }
        (WrittenTlsLevel::Forced, VerifyWanted::None) => {
            Some("with verify = \"none\" no host has to prove who it is")
        }
        (WrittenTlsLevel::Forced, VerifyWanted::Chain) => Some(
            "with verify = \"chain\" any certificate of a trusted authority is enough, and everybody can have one",
        ),
        (WrittenTlsLevel::Forced, VerifyWanted::Name | VerifyWanted::Pin | VerifyWanted::Dane) => {
            None
        }
    }
}

fn warn_of_exception(auth: &Location, outbound: &OutboundToml, faults: &mut FaultList<'_>) {
    if outbound.exception.value().is_some() {
        faults.warn(
            auth,
            "while the exception holds, no login is possible and the mail of this connector waits: the secret goes only to a \
             host that proves who it is",
            "Remove the exception, or remove auth for that time if the smart host takes mail without a login.",
        );
    }
}
