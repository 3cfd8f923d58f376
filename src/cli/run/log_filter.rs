//! The filter of log lines, `[log] level`.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Modules that a filter may name by an earlier path, and their present paths.
const MOVED: [(&str, &str); 13] = [
    ("connector", "policy::connector"),
    ("dns", "net::dns"),
    ("evidence", "storage::evidence"),
    ("failure", "policy::failure"),
    ("handshake", "net::tls_io"),
    ("https", "net::https"),
    ("inbound", "relay::inbound"),
    ("monitor", "telemetry"),
    ("outbound", "relay::outbound"),
    ("route", "net::route"),
    ("scheduler", "relay::scheduler"),
    ("spool", "storage::spool"),
    ("tlsrpt", "relay::tlsrpt"),
];

/// Parses a log filter. Some libraries are silent unless the filter names them: the resolver logs
/// whole DNS messages, whose length a stranger can choose; the client of the database logs the
/// values of statements, which are mail, and a line for each connection that breaks.
///
/// # Errors
/// A directive that cannot be parsed.
pub(super) fn parse(level: &str) -> Result<EnvFilter, ParseError> {
    let level = with_present_paths(level);
    EnvFilter::try_new(format!(
        "hickory_net=off,hickory_proto=off,hickory_resolver=off,deadpool=off,tokio_postgres=off,{level}"
    ))
}

fn with_present_paths(level: &str) -> String {
    level
        .split(',')
        .map(with_present_path)
        .collect::<Vec<_>>()
        .join(",")
}

fn with_present_path(directive: &str) -> String {
    let Some(path) = directive.trim().strip_prefix("gatepost::") else {
        return directive.to_owned();
    };
    let end = path
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(path.len());
    let (module, rest) = path.split_at(end);
    match MOVED.iter().find(|(before, _)| *before == module) {
        Some((_, now)) => format!("gatepost::{now}{rest}"),
        None => directive.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A filter that names a module by its earlier path selects the same lines as before.
    #[test]
    fn earlier_paths_of_modules_are_understood() {
        for (written, meant) in [
            (
                "info,gatepost::outbound=debug",
                "info,gatepost::relay::outbound=debug",
            ),
            (
                "gatepost::outbound::dial=trace, info",
                "gatepost::relay::outbound::dial=trace, info",
            ),
            (
                "gatepost::monitor[queue]=debug",
                "gatepost::telemetry[queue]=debug",
            ),
            ("gatepost::outbounds=debug", "gatepost::outbounds=debug"),
            (
                "gatepost::relay::outbound=debug",
                "gatepost::relay::outbound=debug",
            ),
            ("info,outbound=debug", "info,outbound=debug"),
        ] {
            assert_eq!(with_present_paths(written), meant);
            assert!(parse(written).is_ok(), "{written}");
        }
    }

    /// The client of the database would log mail at `debug`, and one line for each broken connection.
    #[test]
    fn libraries_are_silent_unless_they_are_named() {
        use tracing::subscriber::with_default;
        use tracing_subscriber::layer::SubscriberExt as _;
        let enabled = |filter: &str| {
            let filter = parse(filter).expect("a filter");
            with_default(tracing_subscriber::registry().with(filter), || {
                (
                    tracing::enabled!(target: "tokio_postgres::query", tracing::Level::DEBUG),
                    tracing::enabled!(target: "deadpool.postgres", tracing::Level::WARN),
                    tracing::enabled!(target: "gatepost::daemon", tracing::Level::DEBUG),
                )
            })
        };
        assert_eq!(enabled("debug"), (false, false, true));
        assert_eq!(enabled("info,deadpool=warn"), (false, true, false));
    }
}
