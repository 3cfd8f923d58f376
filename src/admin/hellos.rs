//! `/v1/client-hellos`: the hosts that did not take the usual `ClientHello` lately, and the smaller one that each took.

use axum::Json;
use axum::extract::State;

use super::AdminState;
use super::api::{KnownHello, KnownHelloPage};

pub(super) async fn list(State(admin): State<AdminState>) -> Json<KnownHelloPage> {
    let all = admin.hellos.all().into_iter();
    let items = all.map(|((host, port), hello)| {
        let (host, groups, sni) = (host.to_string(), hello.groups, hello.sni);
        KnownHello { host, port, groups, sni }
    });
    Json(KnownHelloPage { items: items.collect() })
}
