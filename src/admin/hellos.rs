//! `/v1/client-hellos`: the hosts that recently failed with the usual `ClientHello`, each with the
//! reduced one that it accepted.

use axum::Json;
use axum::extract::State;

use super::api::{KnownHello, KnownHelloPage};
use super::state::AdminState;

pub(super) async fn list(State(admin): State<AdminState>) -> Json<KnownHelloPage> {
    let all = admin.hellos.all().into_iter();
    let items = all.map(|((host, port), hello)| {
        let (host, groups, sni) = (host.to_string(), hello.groups, hello.sni);
        KnownHello {
            host,
            port,
            groups,
            sni,
        }
    });
    Json(KnownHelloPage {
        items: items.collect(),
    })
}
