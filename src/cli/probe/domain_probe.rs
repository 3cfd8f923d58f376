//! The probe of one domain: as mail would go now, and as it would go after an exception.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;

use super::context::ProbeContext;
use crate::cli::explain::ask_daemon;
use crate::config::{Connector, OutboundConfig};
use crate::discovery::Discovery;
use crate::explain::{DaemonPolicies, RememberedTls, Sources, policy_domains, recipient_note};
use crate::policy::connector::exception;
use crate::policy::tls::TlsOutcome;
use crate::relay::outbound::probe::{PredictedOutcome, Probe, ProbeQuery, probe};
use crate::smtp::address::Host;

/// The result of probing one domain.
pub(in crate::cli) struct DomainProbe {
    /// The recipient domain.
    pub(in crate::cli) recipient: Host,
    pub(in crate::cli) connector: Arc<Connector>,
    pub(in crate::cli) remembered: RememberedTls,
    /// The MTA-STS policies of the running daemon.
    pub(in crate::cli) known: DaemonPolicies,
    pub(in crate::cli) probe: Probe,
    /// The check of recipients, in a sentence.
    pub(in crate::cli) recipients: Option<String>,
    pub(in crate::cli) after: Option<AfterException>,
}

/// The result of a second probe as if the connector's exception, which is in force, had ended.
pub(in crate::cli) struct AfterException {
    /// The last day of the exception.
    pub(in crate::cli) until: Date,
    pub(in crate::cli) probe: Probe,
}

impl DomainProbe {
    /// Returns true if mail would not be delivered today.
    pub(in crate::cli) fn fails(&self) -> bool {
        fails(&self.probe.prospect)
    }

    /// Returns true if mail would be delivered in the clear today.
    pub(in crate::cli) fn is_clear(&self) -> bool {
        match &self.probe.prospect {
            PredictedOutcome::Sent { clearance, .. } => {
                matches!(clearance.outcome(), TlsOutcome::Clear(_))
            }
            PredictedOutcome::Deferred(_)
            | PredictedOutcome::Held(_)
            | PredictedOutcome::Bounced(_) => false,
        }
    }

    /// Returns true if mail would not be delivered after the exception has ended.
    pub(in crate::cli) fn fails_later(&self) -> bool {
        self.after
            .as_ref()
            .is_some_and(|after| fails(&after.probe.prospect))
    }
}

fn fails(prospect: &PredictedOutcome) -> bool {
    match prospect {
        PredictedOutcome::Sent { .. } => false,
        PredictedOutcome::Deferred(_)
        | PredictedOutcome::Held(_)
        | PredictedOutcome::Bounced(_) => true,
    }
}

/// Probes one domain.
pub(in crate::cli) async fn probe_domain(
    context: &ProbeContext,
    recipient: Host,
    connector: Arc<Connector>,
) -> DomainProbe {
    let policies = policy_domains(&recipient, &connector.outbound.route);
    let (remembered, known) = ask_daemon(&context.snapshot.config, &recipient, &policies).await;
    let discovery = Discovery::with_policies(Sources::new(
        context.web.clone(),
        &remembered,
        known.clone(),
    ));
    let ask = async |connector: &Connector| {
        probe(
            &context.snapshot,
            &discovery,
            ProbeQuery {
                recipient: &recipient,
                connector,
            },
        )
        .await
    };
    let probe = ask(&connector).await;
    let after = match exception(&connector, Timestamp::now()) {
        Some(exception) => Some(AfterException {
            until: exception.until,
            probe: ask(&without_exception(&connector)).await,
        }),
        None => None,
    };
    let recipients = recipient_note(&context.snapshot.config, &recipient, None);
    DomainProbe {
        recipient,
        connector,
        remembered,
        known,
        probe,
        recipients,
        after,
    }
}

fn without_exception(connector: &Connector) -> Connector {
    let outbound = OutboundConfig {
        exception: None,
        ..connector.outbound.clone()
    };
    Connector {
        outbound,
        ..connector.clone()
    }
}
