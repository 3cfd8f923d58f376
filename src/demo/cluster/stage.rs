//! The set-up: a database, three relays that share a queue in it, and a partner whose server is down at
//! first.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::ClientConfig;
use tempfile::TempDir;
use tokio::net::TcpSocket;

use super::super::authority::{Authority, Flaw};
use super::super::cases::PARTNER;
use super::super::peer::{DemoPeer, PeerBehaviour};
use super::database::DemoDatabase;
use super::error::ClusterDemoError;
use super::node::{DemoNode, NodePlan};

/// The number of relays.
pub(super) const NODES: usize = 3;
/// The lease of the relays, the shortest that there is.
pub(super) const LEASE: &str = "3s";
/// The connections that wait for the partner's server.
const BACKLOG: u32 = 64;

/// The relays and what they need.
pub(super) struct ClusterStage {
    // Dropped in this order: the relays before their database.
    pub(super) nodes: Vec<DemoNode>,
    database: DemoDatabase,
    /// The TLS of clients.
    pub(super) client: Arc<ClientConfig>,
    /// The partner's server while it is down: it has its port and refuses connections.
    down: Option<(TcpSocket, PeerBehaviour)>,
    /// The folder is deleted when this is dropped.
    _folder: TempDir,
}

impl ClusterStage {
    /// Starts the database and the relays.
    pub(super) async fn start() -> Result<Self, ClusterDemoError> {
        let folder = tempfile::Builder::new()
            .prefix("gatepost-demo-")
            .tempdir()?;
        let database = DemoDatabase::start(folder.path()).await?;
        let authority = Authority::new()?;
        std::fs::write(folder.path().join("ca.pem"), authority.pem())?;
        let relay = authority.issue("relay.example", Flaw::None)?;
        relay.write_files(folder.path(), "relay")?;
        let behaviour = PeerBehaviour::Tls(authority.issue(PARTNER, Flaw::None)?.server()?);
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let url = database.url();
        let plan = NodePlan {
            folder: folder.path(),
            url: &url,
            partner: socket.local_addr()?,
            lease: LEASE,
        };
        let mut nodes = Vec::new();
        for number in 1..=NODES {
            nodes.push(DemoNode::start(&plan, number).await?);
        }
        Ok(Self {
            nodes,
            database,
            client: authority.client(None)?,
            down: Some((socket, behaviour)),
            _folder: folder,
        })
    }

    /// Brings the partner's server up; `None` if it was up.
    pub(super) fn bring_partner_up(&mut self) -> Result<Option<DemoPeer>, ClusterDemoError> {
        let Some((socket, behaviour)) = self.down.take() else {
            return Ok(None);
        };
        Ok(Some(DemoPeer::serve(socket.listen(BACKLOG)?, behaviour)?))
    }

    /// Stops the relays that run, then their database, in an orderly way.
    pub(super) async fn stop(mut self) -> Result<(), ClusterDemoError> {
        for node in &mut self.nodes {
            node.stop().await?;
        }
        self.database.stop().await
    }
}
