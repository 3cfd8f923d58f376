//! Explains an unmet TLS policy to the sender of a message, who is no administrator: the rule and
//! its reason, what is wrong, on whose side, and what can be done. The technical text is that of
//! [`Failure`].

use jiff::Timestamp;

use super::{Cause, FailedHost, Failure, RequireTlsUnmet};
use crate::policy::connector::ended_exception;
use crate::policy::connector::{Connector, Route};
use crate::policy::tls::{
    ChainFault, DaneFault, Demand, Layer, NoTls, Refusal, Unmeetable, Unmet, Verify,
};
use crate::smtp::address::Host;

/// The side that can end a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The recipient's side, or the network on the way there.
    Recipient,
    /// This relay.
    Relay,
    /// Both sides, which must agree on something.
    Both,
    /// The sender, who asked for more protection than the servers on the way offer.
    Sender,
}

/// The names that occur in an explanation.
struct Names {
    /// The recipient's domain.
    domain: String,
    /// The server that failed.
    host: String,
    /// The party that runs the server: the domain, or a smart host.
    operator: String,
    /// The action of this relay, as a part of a sentence, such as "sends to example.org".
    way: String,
}

/// Returns the explanation of a failure for the sender; `None` if the failure is not about TLS
/// policy.
///
/// `recipient` is the recipient's domain; `None` if the failure concerns several domains.
#[must_use]
pub fn explain_to_sender(
    failure: &Failure,
    recipient: Option<&Host>,
    connector: &Connector,
    now: Timestamp,
) -> Option<String> {
    let names = Names::new(failure, recipient, connector);
    let (rule, (problem, side)) = match &failure.cause {
        Cause::Policy(refusal) => (
            rule(&refusal.demand, &names, connector, now),
            problem(refusal, &names),
        ),
        Cause::RequireTls(why) => (required_by_sender(), required_problem(why, &names)),
        Cause::Discovery(_) => (String::new(), unknown_rule(&names)),
        Cause::Reply { .. } | Cause::Ourselves(_) | Cause::Other(_) => return None,
    };
    let text = [rule, problem, remedy(side, &names)];
    Some(
        text.iter()
            .filter(|part| !part.is_empty())
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" "),
    )
}

impl Names {
    fn new(failure: &Failure, recipient: Option<&Host>, connector: &Connector) -> Self {
        let domain =
            recipient.map_or_else(|| "the recipient's domain".to_owned(), ToString::to_string);
        let host = failure.peer.as_ref().map(FailedHost::host_name);
        let host = host.unwrap_or_else(|| "its mail server".to_owned());
        let (operator, way) = match &connector.outbound.route {
            Route::Mx { .. } => (domain.clone(), format!("sends to {domain}")),
            Route::SmartHosts(_) => (
                host.clone(),
                format!("passes mail for {domain} on to {host}"),
            ),
        };
        Self {
            domain,
            host,
            operator,
            way,
        }
    }
}

/// Returns the sentence about the rule, and why it holds.
fn rule(demand: &Demand, names: &Names, connector: &Connector, now: Timestamp) -> String {
    let Names { operator, way, .. } = names;
    let reason = match demand.layer {
        Layer::Connector | Layer::Exception => {
            let ended = ended_exception(connector, now).map(|exception| {
                let day = exception.until.strftime("%-d %b %Y");
                format!("; an exception to that ended on {day}")
            });
            format!("our administrators decided so{}", ended.unwrap_or_default())
        }
        Layer::Dane | Layer::MtaSts => format!("{operator} asks all senders for that"),
        Layer::DowngradeMemory => match demand.last_tls {
            Some(last) => format!("their server accepted it so until {}", date(last)),
            None => "their server accepted it so before".to_owned(),
        },
        Layer::RequireTls => return required_by_sender(),
    };
    let proof = match demand.verify {
        Verify::None => "",
        Verify::Chain
        | Verify::Name(_)
        | Verify::Published(_)
        | Verify::Pin(_)
        | Verify::Dane(_)
        | Verify::Impossible(_) => " and only to a server that proves its identity",
    };
    format!("This relay {way} only encrypted{proof}, because {reason}.")
}

fn required_by_sender() -> String {
    "You, or the program that sent your message, asked that it travel only encrypted, and only to servers that prove \
     their identity."
        .to_owned()
}

/// Returns the sentence about the part of the demand that is unmet, and the side that can end it.
fn problem(refusal: &Refusal, names: &Names) -> (String, Side) {
    let host = &names.host;
    let (text, side) = match &refusal.unmet {
        Unmet::NoTls(reason) => encryption_problem(reason, names),
        Unmet::Version(_) => (
            format!("{host} offers only an outdated kind of encryption"),
            Side::Recipient,
        ),
        Unmet::KeyExchange(_) => (
            format!("{host} offers only encryption that is weaker than agreed"),
            Side::Both,
        ),
        Unmet::NoCertificate => (
            format!("{host} shows nothing that proves its identity"),
            Side::Recipient,
        ),
        Unmet::Unproved(_) => (
            format!("the certificate of {host} is of a kind that proves no identity"),
            Side::Recipient,
        ),
        Unmet::Chain(fault) => certificate_problem(fault, host),
        Unmet::Name { .. } => match refusal.demand.layer {
            Layer::Connector | Layer::Exception => (issued_for_another(host), Side::Both),
            Layer::Dane | Layer::MtaSts | Layer::RequireTls | Layer::DowngradeMemory => {
                (issued_for_another(host), Side::Recipient)
            }
        },
        Unmet::Pin { .. } => (
            format!("{host} shows another key than the one that was agreed"),
            Side::Both,
        ),
        Unmet::Dane(DaneFault::NotChecked) => (
            format!("the identity of {host} was not checked"),
            Side::Relay,
        ),
        Unmet::Dane(DaneFault::NoMatch { .. }) => (
            format!("{host} shows another certificate than the one that was announced for it"),
            Side::Recipient,
        ),
        Unmet::Dane(DaneFault::Path(fault)) => certificate_problem(fault, host),
        Unmet::Dane(DaneFault::Name { .. }) => (issued_for_another(host), Side::Recipient),
        Unmet::Unmeetable(why) => unmeetable_problem(why, names),
    };
    let suspicion = match (refusal.demand.layer, side) {
        (Layer::DowngradeMemory, Side::Recipient) => {
            ". Either their server was changed, or somebody on the way prevents encryption"
        }
        _ => "",
    };
    (format!("But {text}{suspicion}."), side)
}

fn encryption_problem(reason: &NoTls, Names { domain, host, .. }: &Names) -> (String, Side) {
    let text = match reason {
        NoTls::NotOffered => format!("{host} does not offer encryption at present"),
        NoTls::Rejected(_) => format!("{host} refuses encryption at present"),
        NoTls::SpokeBeforeHandshake | NoTls::Broken(_) => {
            format!("the encrypted connection to {host} failed")
        }
        NoTls::NotWanted | NoTls::NotUsed => {
            let text = format!("this relay is set up to send to {domain} without encryption");
            return (text, Side::Relay);
        }
    };
    (text, Side::Recipient)
}

fn issued_for_another(host: &str) -> String {
    format!("the certificate that {host} shows was issued for another server")
}

fn certificate_problem(fault: &ChainFault, host: &str) -> (String, Side) {
    match fault {
        ChainFault::Expired(at) => (
            format!("the certificate that {host} shows expired on {}", date(*at)),
            Side::Recipient,
        ),
        ChainFault::NotYetValid(at) => (
            format!(
                "the certificate that {host} shows is not valid before {}",
                date(*at)
            ),
            Side::Recipient,
        ),
        ChainFault::SelfSigned | ChainFault::UnknownIssuer(_) => (
            format!("this relay does not know the issuer of the certificate that {host} shows"),
            Side::Both,
        ),
        ChainFault::NotChecked => (
            format!("the certificate that {host} shows was not checked"),
            Side::Relay,
        ),
        ChainFault::Invalid(_) => (
            format!("the certificate that {host} shows is not valid"),
            Side::Recipient,
        ),
    }
}

fn unmeetable_problem(why: &Unmeetable, Names { domain, host, .. }: &Names) -> (String, Side) {
    match why {
        Unmeetable::NoTlsa(_) => (
            format!("nothing that is published about {host} lets this relay check its identity"),
            Side::Both,
        ),
        Unmeetable::UnsignedMx(_) => (
            format!("nothing proves that {host} is the mail server of {domain}"),
            Side::Both,
        ),
        Unmeetable::NotListed { host, .. } => (
            format!("{host} is not among the mail servers that {domain} lists"),
            Side::Recipient,
        ),
        Unmeetable::NoName(host) => (
            format!("{host} is an address, which cannot prove an identity"),
            Side::Relay,
        ),
        Unmeetable::Unproven(_) => (
            format!("nothing proves that {host} is the mail server of {domain}"),
            Side::Sender,
        ),
    }
}

/// Returns the sentence about a requirement of the message that is unmet.
fn required_problem(why: &RequireTlsUnmet, names: &Names) -> (String, Side) {
    let Names { domain, host, .. } = names;
    let text = match why {
        RequireTlsUnmet::Session(refusal) => return (problem(refusal, names).0, Side::Sender),
        RequireTlsUnmet::Off => {
            format!("But this relay is set up to send to {domain} without encryption.")
        }
        RequireTlsUnmet::NotOffered => {
            format!("But {host} does not promise to pass it on like that.")
        }
    };
    (text, Side::Sender)
}

/// Returns the sentence about a published policy that cannot be looked up.
fn unknown_rule(Names { operator, .. }: &Names) -> (String, Side) {
    let text = format!(
        "This relay must know how {operator} wants mail to be protected before it sends any, and cannot find that out at \
         present."
    );
    (text, Side::Recipient)
}

/// Returns the sentences about the remedy.
fn remedy(side: Side, Names { operator, .. }: &Names) -> String {
    match side {
        Side::Recipient => format!(
            "The cause is on the side of {operator}, or on the way there. Please reach the recipient in another way if it \
             is urgent, and let those who look after mail at {operator} see this report."
        ),
        Side::Relay => {
            "The cause is in the settings of this relay. Please show this report to its administrators, who \
                        can change that."
                .to_owned()
        }
        Side::Both => format!(
            "The administrators of this relay and of {operator} must agree on that. Please show this report to those of \
             this relay, and reach the recipient in another way if it is urgent."
        ),
        Side::Sender => "If the message may travel without that protection, send it again without asking for it. \
                         Otherwise reach the recipient in another way."
            .to_owned(),
    }
}

/// Returns a date as people write it, in UTC: `29 Nov 2026`.
fn date(at: Timestamp) -> String {
    at.strftime("%-d %b %Y").to_string()
}

#[cfg(test)]
mod tests;
