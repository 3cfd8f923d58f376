//! Explains an unmet TLS policy to the sender of a message, who is no administrator: the rule and
//! its reason, what is wrong, on whose side, and what can be done. It names mail systems by their
//! domains, never by addresses. The technical text is that of [`Failure`].

use jiff::Timestamp;

use super::{Cause, FailedHost, Failure, RequireTlsUnmet};
use crate::policy::connector::ended_exception;
use crate::policy::connector::{Connector, Route};
use crate::policy::tls::{
    ChainFault, DaneFault, Demand, Layer, NoTls, Refusal, RevocationFault, Unmeetable, Unmet,
    Verify,
};
use crate::smtp::address::{Domain, Host};

/// The side that can end a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The recipient's side, or the network on the way there.
    Recipient,
    /// Our side.
    Relay,
    /// Both sides, which must agree on something.
    Both,
    /// The sender, who asked for more protection than the servers on the way offer.
    Sender,
}

/// The names that occur in an explanation.
struct Names {
    /// Our host name.
    relay: String,
    /// The recipient's domain.
    domain: String,
    /// The server that failed; a description if it has no name.
    host: String,
    /// The party that runs the server: the domain, or a smart host.
    operator: String,
    /// The action of our mail system, as a part of a sentence, such as "sends to example.org".
    way: String,
}

/// Returns the explanation of a failure for the sender; `None` if the failure is neither about TLS
/// policy nor about our login.
///
/// `recipient` is the recipient's domain; `None` if the failure concerns several domains. `relay`
/// is our host name.
#[must_use]
pub fn explain_to_sender(
    failure: &Failure,
    recipient: Option<&Host>,
    connector: &Connector,
    relay: &Domain,
    now: Timestamp,
) -> Option<String> {
    let names = Names::new(failure, recipient, connector, relay);
    let (rule, (problem, side)) = match &failure.cause {
        Cause::Policy(refusal) => (
            rule(&refusal.demand, &names, connector, now),
            problem(refusal, &names),
        ),
        Cause::RequireTls(why) => (required_by_sender(), required_problem(why, &names)),
        Cause::Discovery(_) => (String::new(), unknown_rule(&names)),
        Cause::Login(_) => (String::new(), not_logged_in(&names)),
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
    fn new(
        failure: &Failure,
        recipient: Option<&Host>,
        connector: &Connector,
        relay: &Domain,
    ) -> Self {
        let domain = recipient
            .and_then(Host::domain)
            .map_or_else(|| "the recipient's domain".to_owned(), ToString::to_string);
        let host = failure.peer.as_ref().and_then(FailedHost::domain);
        let (host, operator, way) = match (&connector.outbound.route, host) {
            (Route::Mx { .. }, host) => (
                host.map_or_else(
                    || format!("the mail server of {domain}"),
                    ToString::to_string,
                ),
                domain.clone(),
                format!("sends to {domain}"),
            ),
            (Route::SmartHosts(_), Some(host)) => (
                host.to_string(),
                host.to_string(),
                format!("passes mail for {domain} on to {host}"),
            ),
            (Route::SmartHosts(_), None) => (
                "the next mail server".to_owned(),
                "the next mail server".to_owned(),
                format!("passes mail for {domain} on"),
            ),
        };
        Self {
            relay: relay.to_string(),
            domain,
            host,
            operator,
            way,
        }
    }
}

/// Returns the sentence about the rule, and why it holds.
fn rule(demand: &Demand, names: &Names, connector: &Connector, now: Timestamp) -> String {
    let Names {
        relay,
        operator,
        way,
        ..
    } = names;
    let reason = match demand.layer {
        Layer::Connector | Layer::Exception | Layer::RecipientConnector => {
            let ended = ended_exception(connector, now).map(|exception| {
                let day = exception.until.strftime("%-d %b %Y");
                format!("; an exception to that ended on {day}")
            });
            format!("its administrators decided so{}", ended.unwrap_or_default())
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
    format!("The mail system {relay} {way} only encrypted{proof}, because {reason}.")
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
        Unmet::Chain(fault) => certificate_problem(fault, names),
        Unmet::Name { .. } => match refusal.demand.layer {
            Layer::Connector | Layer::Exception | Layer::RecipientConnector => {
                (issued_for_another(host), Side::Both)
            }
            Layer::Dane | Layer::MtaSts | Layer::RequireTls | Layer::DowngradeMemory => {
                (issued_for_another(host), Side::Recipient)
            }
        },
        Unmet::Pin { .. } => (
            format!("{host} shows another key than the one that was agreed"),
            Side::Both,
        ),
        Unmet::Revocation(RevocationFault::Revoked(_, since)) => (
            format!(
                "the certificate that {host} shows was declared invalid by its issuer on {}",
                date(*since)
            ),
            Side::Recipient,
        ),
        Unmet::Revocation(
            RevocationFault::Expired(..) | RevocationFault::NoCrl(..) | RevocationFault::NotChecked,
        ) => (
            format!(
                "{} cannot find out at present if the certificate that {host} shows is still valid",
                names.relay
            ),
            Side::Relay,
        ),
        Unmet::Dane(DaneFault::NotChecked) => (
            format!("the identity of {host} was not checked"),
            Side::Relay,
        ),
        Unmet::Dane(DaneFault::NoMatch { .. }) => (
            format!("{host} shows another certificate than the one that was announced for it"),
            Side::Recipient,
        ),
        Unmet::Dane(DaneFault::Path(fault)) => certificate_problem(fault, names),
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

fn encryption_problem(reason: &NoTls, names: &Names) -> (String, Side) {
    let host = &names.host;
    let text = match reason {
        NoTls::NotOffered => format!("{host} does not offer encryption at present"),
        NoTls::Rejected(_) => format!("{host} refuses encryption at present"),
        NoTls::SpokeBeforeHandshake | NoTls::Broken(_) => {
            format!("the encrypted connection to {host} failed")
        }
        NoTls::NotWanted | NoTls::NotUsed => {
            return (set_up_without_encryption(names), Side::Relay);
        }
    };
    (text, Side::Recipient)
}

fn set_up_without_encryption(Names { relay, domain, .. }: &Names) -> String {
    format!("{relay} is set up to send to {domain} without encryption")
}

fn issued_for_another(host: &str) -> String {
    format!("the certificate that {host} shows was issued for another server")
}

fn certificate_problem(fault: &ChainFault, Names { relay, host, .. }: &Names) -> (String, Side) {
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
            format!("{relay} does not know the issuer of the certificate that {host} shows"),
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

fn unmeetable_problem(why: &Unmeetable, names: &Names) -> (String, Side) {
    let Names {
        relay,
        domain,
        host,
        ..
    } = names;
    match why {
        Unmeetable::NoTlsa(_) => (
            format!("nothing that is published about {host} lets {relay} check its identity"),
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
        Unmeetable::NoName(_) => (
            format!("{host} is known by a number only, and without a name it proves no identity"),
            Side::Relay,
        ),
        Unmeetable::Unproven(_) => (
            format!("nothing proves that {host} is the mail server of {domain}"),
            Side::Sender,
        ),
        Unmeetable::Contradiction(_) => (
            format!("the rules of {relay} for this mail contradict each other"),
            Side::Relay,
        ),
    }
}

/// Returns the sentence about a requirement of the message that is unmet.
fn required_problem(why: &RequireTlsUnmet, names: &Names) -> (String, Side) {
    let text = match why {
        RequireTlsUnmet::Session(refusal) => return (problem(refusal, names).0, Side::Sender),
        RequireTlsUnmet::Off => format!("But {}.", set_up_without_encryption(names)),
        RequireTlsUnmet::NotOffered => {
            let host = &names.host;
            format!("But {host} does not promise to pass it on like that.")
        }
    };
    (text, Side::Sender)
}

/// Returns the sentence about a server that does not let us in.
fn not_logged_in(Names { relay, way, .. }: &Names) -> (String, Side) {
    let text = format!("The mail system {relay} {way}, and cannot log in there at present.");
    (text, Side::Relay)
}

/// Returns the sentence about a published policy that cannot be looked up.
fn unknown_rule(
    Names {
        relay, operator, ..
    }: &Names,
) -> (String, Side) {
    let text = format!(
        "The mail system {relay} must know how {operator} wants mail to be protected before it sends any, and cannot find \
         that out at present."
    );
    (text, Side::Recipient)
}

/// Returns the sentences about the remedy.
fn remedy(
    side: Side,
    Names {
        relay, operator, ..
    }: &Names,
) -> String {
    match side {
        Side::Recipient => format!(
            "The cause is on the side of {operator}, or on the way there. Please reach the recipient in another way if it \
             is urgent, and pass this report on to the mail administrators of {operator}."
        ),
        Side::Relay => format!(
            "The cause is in the settings of {relay}. Please show this report to its administrators, who can change that."
        ),
        Side::Both => format!(
            "The administrators of {relay} and of {operator} must agree on that. Please show this report to those of \
             {relay}, and reach the recipient in another way if it is urgent."
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
