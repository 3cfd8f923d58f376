//! `/v1/queue/orders`: orders of operators, for messages of this relay and for those of other nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::api::{OrderRequest, OrderResponse, OrderResult, OvertakenBy, PAGE_MAX};
use super::queue::{find, owners};
use super::state::{AdminState, ErrorResponse, PeerUid};
use crate::relay::scheduler::{Order, OrderRefused};
use crate::smtp::envelope::QueueId;
use crate::storage::spool::{ClusterNodes, NodeAnswer, NodeOrder, SpoolError};

/// The time in which another node must carry out an order.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause between two looks for orders of other nodes.
const PAUSE: Duration = Duration::from_secs(1);

/// `POST /v1/queue/orders`.
pub(super) async fn order(
    State(admin): State<AdminState>,
    Extension(PeerUid(uid)): Extension<PeerUid>,
    orders: Result<Json<OrderRequest>, JsonRejection>,
) -> Result<Json<OrderResponse>, ErrorResponse> {
    let Json(OrderRequest { order, mut ids }) =
        orders.map_err(|rejection| ErrorResponse(rejection.status(), rejection.body_text()))?;
    if ids.is_empty() || ids.len() > PAGE_MAX {
        let sentence = format!("an order names 1 to {PAGE_MAX} ids");
        return Err(ErrorResponse(StatusCode::UNPROCESSABLE_ENTITY, sentence));
    }
    ids.sort_unstable();
    ids.dedup();
    // Logged before the order runs: if the client disconnects meanwhile, nothing below is reached.
    let messages = ids.len();
    tracing::info!(?order, uid, messages, "an operator gave an order");
    let mut answers = match admin.spool.nodes() {
        Some(nodes) => order_in_cluster(&admin, &nodes, order, ids).await?,
        None => carry_out(&admin, order, ids).await?,
    };
    answers.sort_by_key(|answer| answer.id);
    let done = answers.iter().filter(|answer| answer.done).count();
    tracing::info!(
        ?order,
        uid,
        done,
        refused = answers.len() - done,
        "an operator's order ended"
    );
    Ok(Json(OrderResponse { answers }))
}

/// Carries out an order for messages of this node, and passes it on for those of others.
async fn order_in_cluster(
    admin: &AdminState,
    nodes: &ClusterNodes,
    order: Order,
    ids: Vec<QueueId>,
) -> Result<Vec<OrderResult>, ErrorResponse> {
    let owners = owners(admin, ids.iter().copied()).await?;
    let (mut own, mut answers) = (Vec::new(), Vec::new());
    let mut others: BTreeMap<&str, Vec<QueueId>> = BTreeMap::new();
    for id in ids {
        match owners.get(&id) {
            Some(owner) if owner.is_own => own.push(id),
            Some(owner) if owner.is_alive => others.entry(&owner.node).or_default().push(id),
            Some(owner) => answers.push(refused(
                id,
                format!(
                    "the node {} has the message and is dead; the others claim within a minute what they may (gatepost node list)",
                    owner.node
                ),
            )),
            None if find(&*admin.spool, id).await?.is_none() => {
                answers.push(refusal(id, &SpoolError::Missing(id).into()));
            }
            None => {
                let text = "no node has the message at the moment; the nodes claim it within a minute if they may";
                answers.push(refused(id, text.to_owned()));
            }
        }
    }
    if !own.is_empty() {
        answers.extend(carry_out(admin, order, own).await?);
    }
    for (node, ids) in others {
        answers.extend(pass_on(nodes, node, order, ids).await);
    }
    Ok(answers)
}

/// Gives an order to another node, and returns the result for each message.
async fn pass_on(
    nodes: &ClusterNodes,
    node: &str,
    order: Order,
    ids: Vec<QueueId>,
) -> Vec<OrderResult> {
    let request = OrderRequest {
        order,
        ids: ids.clone(),
    };
    // It has ids and a word, which cannot fail.
    let content = serde_json::to_string(&request).unwrap_or_default();
    let seconds = PATIENCE.as_secs();
    let text = match nodes.orders().give(node, &content, PATIENCE).await {
        Ok(NodeAnswer::Result(result)) => match serde_json::from_str::<OrderResponse>(&result) {
            Ok(response) => return response.answers,
            Err(_) => format!("the node {node} refused the order: {result}"),
        },
        Ok(NodeAnswer::NotAlive) => {
            format!(
                "the node {node} has just ended; the others claim within a minute what they may"
            )
        }
        Ok(NodeAnswer::NotBegun) => format!(
            "the node {node} has the message and did not answer within {seconds} s; the order was withdrawn"
        ),
        Ok(NodeAnswer::Unknown) => format!(
            "the node {node} has begun the order and given no result within {seconds} s; see `gatepost queue show`"
        ),
        Err(error) => format!("the order for the node {node} may be carried out or not: {error}"),
    };
    let refuse = |id| refused(id, text.clone());
    ids.into_iter().map(refuse).collect()
}

/// Carries out the orders that other nodes give to this one, until `stop`. A relay with a spool of its
/// own gets none.
pub async fn serve_node_orders(admin: AdminState, stop: CancellationToken) {
    let Some(nodes) = admin.spool.nodes() else {
        stop.cancelled().await;
        return;
    };
    let orders = nodes.orders();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        // The spool logs it if the database is gone.
        for begun in orders.begin().await.unwrap_or_default() {
            let result = carry_out_for_other(&admin, &begun).await;
            if let Err(error) = orders.answer(&begun, &result).await {
                tracing::error!(%error, "cannot send the result of an order to another node");
            }
        }
    }
}

/// Carries out an order of another node, and returns the text of the result.
async fn carry_out_for_other(admin: &AdminState, begun: &NodeOrder) -> String {
    let request = match serde_json::from_str(&begun.content) {
        Ok(request) => request,
        Err(error) => return format!("the order cannot be read: {error}"),
    };
    let OrderRequest { order, ids } = request;
    let messages = ids.len();
    tracing::info!(
        ?order,
        messages,
        "an operator gave an order on another node"
    );
    match carry_out(admin, order, ids).await {
        Ok(answers) => serde_json::to_string(&OrderResponse { answers }).unwrap_or_default(),
        Err(ErrorResponse(_, sentence)) => sentence,
    }
}

/// Carries out an order for messages of this relay.
async fn carry_out(
    admin: &AdminState,
    order: Order,
    ids: Vec<QueueId>,
) -> Result<Vec<OrderResult>, ErrorResponse> {
    let mut answers = Vec::new();
    let mut found = Vec::new();
    for id in ids {
        // The scheduler has in memory all that can be retried; what it does not have is looked for
        // below.
        if order == Order::Retry || find(&*admin.spool, id).await?.is_some() {
            found.push(id);
        } else {
            answers.push(refusal(id, &SpoolError::Missing(id).into()));
        }
    }
    let results = admin.operator.order(order, found).await;
    admin.queue_counter.expire();
    for (id, result) in results {
        let result = match result {
            // No recipient of the message waits: it may have been delivered in the meantime.
            Err(OrderRefused::NothingToDo(_)) if find(&*admin.spool, id).await?.is_none() => {
                Err(SpoolError::Missing(id).into())
            }
            result => result,
        };
        answers.push(match result {
            Ok(()) => OrderResult {
                id,
                done: true,
                error: None,
                meanwhile: None,
            },
            Err(refused) => refusal(id, &refused),
        });
    }
    Ok(answers)
}

/// Returns the result of an order that was not carried out.
fn refusal(id: QueueId, refused: &OrderRefused) -> OrderResult {
    let meanwhile = match refused {
        OrderRefused::Spool(SpoolError::Missing(_)) => Some(OvertakenBy::Gone),
        OrderRefused::Busy => Some(OvertakenBy::Busy),
        OrderRefused::Spool(_)
        | OrderRefused::NothingToDo(_)
        | OrderRefused::ReportNotStored
        | OrderRefused::Panicked
        | OrderRefused::Stopping => None,
    };
    OrderResult {
        id,
        done: false,
        error: Some(refused.to_string()),
        meanwhile,
    }
}

fn refused(id: QueueId, text: String) -> OrderResult {
    OrderResult {
        id,
        done: false,
        error: Some(text),
        meanwhile: None,
    }
}
