//! `/v1/nodes`: the relays that share the spool.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, State};
use axum::http::StatusCode;

use super::api::nodes::{
    ConfigComparison, NodeDetails, NodeDrainRequest, NodeDrainResponse, NodeRemovalRequest,
    NodeRemovalResponse,
};
use super::state::{AdminState, ErrorResponse, PeerUid};
use crate::policy::adoption::NodeConfig;
use crate::storage::postgresql::DatabaseError;
use crate::storage::spool::{ClusterNode, ClusterNodes, NodeDrain, NodeRemoval};

/// `GET /v1/nodes`.
pub(super) async fn list(
    State(admin): State<AdminState>,
) -> Result<Json<Vec<NodeDetails>>, ErrorResponse> {
    let all = cluster(&admin)?.list().await?;
    let own = all.iter().find(|node| node.is_own);
    let own = own.map(|node| node.config.clone()).unwrap_or_default();
    let details = all.into_iter().map(|node| details(node, &own));
    Ok(Json(details.collect()))
}

/// `POST /v1/nodes/remove`.
pub(super) async fn remove(
    State(admin): State<AdminState>,
    Extension(PeerUid(uid)): Extension<PeerUid>,
    request: Result<Json<NodeRemovalRequest>, JsonRejection>,
) -> Result<Json<NodeRemovalResponse>, ErrorResponse> {
    let Json(NodeRemovalRequest { name, hand_over }) =
        request.map_err(|rejection| ErrorResponse(rejection.status(), rejection.body_text()))?;
    match cluster(&admin)?.remove(&name, hand_over).await? {
        NodeRemoval::Removed(messages) => {
            tracing::warn!(node = name, messages, uid, "node removed by an operator");
            Ok(Json(NodeRemovalResponse { messages }))
        }
        NodeRemoval::Missing => Err(ErrorResponse(
            StatusCode::NOT_FOUND,
            format!("there is no node {name}"),
        )),
        NodeRemoval::Alive(until) => Err(ErrorResponse(
            StatusCode::CONFLICT,
            format!(
                "the node {name} is alive, its lease holds until {until}; stop it first (systemctl stop gatepost there)"
            ),
        )),
        NodeRemoval::HasMessages(messages) => Err(ErrorResponse(
            StatusCode::CONFLICT,
            format!(
                "the node {name} has left {messages} messages; the other nodes claim those for which their connectors are the same, \
                 within a minute. Start it again to have the rest delivered by its own rules, or remove it with --hand-over, \
                 and the others deliver them by theirs"
            ),
        )),
    }
}

/// `POST /v1/nodes/drain`.
pub(super) async fn drain(
    State(admin): State<AdminState>,
    Extension(PeerUid(uid)): Extension<PeerUid>,
    request: Result<Json<NodeDrainRequest>, JsonRejection>,
) -> Result<Json<NodeDrainResponse>, ErrorResponse> {
    let Json(NodeDrainRequest { name, end }) =
        request.map_err(|rejection| ErrorResponse(rejection.status(), rejection.body_text()))?;
    match cluster(&admin)?.drain(name.as_deref(), !end).await? {
        NodeDrain::Ordered {
            name,
            is_own,
            messages,
        } => {
            tracing::warn!(
                node = name,
                end,
                uid,
                "drain of a node ordered by an operator"
            );
            if is_own {
                // The node finds the order by a renewal of its lease. An error is met by the next one.
                drop(admin.spool.renew().await);
            }
            Ok(Json(NodeDrainResponse { name, messages }))
        }
        NodeDrain::Missing => Err(ErrorResponse(
            StatusCode::NOT_FOUND,
            format!("there is no node {}", name.unwrap_or_default()),
        )),
        NodeDrain::OnlyNode(name) => Err(ErrorResponse(
            StatusCode::CONFLICT,
            format!(
                "no other node than {name} is alive and takes mail; start another one first, or end its drain (gatepost node drain NAME --end)"
            ),
        )),
    }
}

fn cluster(admin: &AdminState) -> Result<ClusterNodes, ErrorResponse> {
    admin.spool.nodes().ok_or_else(|| {
        let sentence =
            "this relay has a spool of its own and no nodes beside it; [spool] url makes it one of several";
        ErrorResponse(StatusCode::CONFLICT, sentence.to_owned())
    })
}

impl From<DatabaseError> for ErrorResponse {
    fn from(error: DatabaseError) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

fn details(node: ClusterNode, own: &NodeConfig) -> NodeDetails {
    let is_published = |config: &NodeConfig| !config.connectors.is_empty();
    let differing: Vec<String> = own
        .differing_connectors(&node.config)
        .into_iter()
        .map(str::to_owned)
        .collect();
    let (config, differing) = if !is_published(&node.config) || !is_published(own) {
        (ConfigComparison::Unknown, Vec::new())
    } else if differing.is_empty() {
        (ConfigComparison::Same, differing)
    } else {
        (ConfigComparison::Differs, differing)
    };
    NodeDetails {
        name: node.name,
        number: node.number,
        own: node.is_own,
        alive: node.is_alive,
        lease_end: node.lease_end,
        draining: node.is_draining,
        messages: node.messages,
        config,
        differing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::adoption::PublishedConnector;

    #[test]
    fn a_configuration_is_the_same_differs_or_is_not_known() {
        let config = |rules: &str| NodeConfig {
            digest: String::new(),
            rules: rules.to_owned(),
            connectors: vec![PublishedConnector {
                name: "partner".to_owned(),
                domains: vec!["*".to_owned()],
                rules: rules.to_owned(),
            }],
        };
        let (own, unknown) = (config("one"), NodeConfig::default());
        for (own, other, expected, differing) in [
            (&own, &own, ConfigComparison::Same, &[][..]),
            (
                &own,
                &config("two"),
                ConfigComparison::Differs,
                &["partner"],
            ),
            (&own, &unknown, ConfigComparison::Unknown, &[]),
            (&unknown, &own, ConfigComparison::Unknown, &[]),
        ] {
            let node = ClusterNode {
                number: 1,
                name: "one".to_owned(),
                is_own: false,
                is_alive: true,
                lease_end: jiff::Timestamp::UNIX_EPOCH,
                is_draining: false,
                messages: 0,
                config: other.clone(),
            };
            let found = details(node, own);
            assert_eq!(
                (found.config, &found.differing[..]),
                (
                    expected,
                    &differing
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()[..]
                )
            );
        }
    }
}
