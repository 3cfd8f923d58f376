//! Logins at smart hosts with access tokens: the token server is asked once, a refused token is
//! replaced once, and without a token the mail waits.

use gatepost::relay::outbound::Outbound;

use crate::support::certificates::{BOTH, server_config};
use crate::support::deliveries::{World, connector, deliver, failure, message, outcome, result};
use crate::support::peer::{Heard, Manner, Peer, Starttls};
use crate::tokens::{Conduct, TokenServer, json, token, write_private};

/// The name of the smart host.
const HOP: &str = "smtp.provider.example";
const RECORDS: &str = "
    smtp.provider.example A 127.0.0.1
    login.example A 127.0.0.1
";
/// `user=scanner@example.com^Aauth=Bearer first^A^A`.
const FIRST: &str = "AUTH XOAUTH2 dXNlcj1zY2FubmVyQGV4YW1wbGUuY29tAWF1dGg9QmVhcmVyIGZpcnN0AQE=";
/// The same with the token `second`.
const SECOND: &str = "AUTH XOAUTH2 dXNlcj1zY2FubmVyQGV4YW1wbGUuY29tAWF1dGg9QmVhcmVyIHNlY29uZAEB";

/// A provider: a token server and a smart host.
struct Provider {
    world: World,
    tokens: TokenServer,
    host: Peer,
}

impl Provider {
    /// Starts a token server that gives these answers, and a host that offers this keyword and
    /// replies to lines that begin like this.
    async fn start(
        script: Vec<Conduct>,
        auth: &'static [&'static str],
        answers: &[(&'static str, usize, &'static str)],
    ) -> Self {
        let world = World::with(RECORDS).await;
        let tokens = TokenServer::start(&world.authority.issue(&["login.example"]), script).await;
        let pair = world.authority.issue(&[HOP]);
        let mut manner = Manner::new(Starttls::Tls(server_config(&pair, BOTH).into()));
        manner.keywords = auth;
        manner.answers = answers.to_vec();
        let host = Peer::start(manner).await;
        Self {
            world,
            tokens,
            host,
        }
    }

    fn outbound(&self) -> Outbound {
        self.outbound_with("")
    }

    /// With one more line under `[connector.outbound]`.
    fn outbound_with(&self, line: &str) -> Outbound {
        let folder = self.world.folder();
        write_private(&folder.join("secret"), "s3cret");
        let lines = format!(
            "route = [\"{HOP}:{}\"]\ntls = \"forced\"\nverify = \"name\"\n{line}\n\
             [connector.outbound.auth]\nuser = \"scanner@example.com\"\n\
             [connector.outbound.auth.oauth2]\ngrant = \"client_credentials\"\n\
             token_url = \"https://login.example:{}/tenant/token\"\nclient_id = \"client-1\"\n\
             client_secret_file = \"{}\"\nscope = \"https://outlook.office365.com/.default\"",
            self.host.address.port(),
            self.tokens.port,
            folder.join("secret").display()
        );
        self.world
            .outbound(&connector("partner", &["partner.example"], &lines))
    }

    async fn heard(&self, outbound: &Outbound) -> Vec<Heard> {
        outbound.close();
        self.host.heard_to_the_end().await
    }
}

/// The lines of a login on a connection.
fn logins(heard: &Heard) -> Vec<&str> {
    let lines = heard.commands.iter().map(String::as_str);
    lines.filter(|line| line.starts_with("AUTH")).collect()
}

#[tokio::test]
async fn a_token_is_fetched_once_and_used_for_all_messages() {
    let accepted = [("AUTH", 0, "235 2.7.0 ok")];
    let provider = Provider::start(vec![token("first")], &["AUTH LOGIN XOAUTH2"], &accepted).await;
    let outbound = provider.outbound();
    for _ in 0..2 {
        let report = deliver(&outbound, message(&["b@partner.example"])).await;
        assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
        let via = result(&report, 0).via.clone().expect("a session");
        let login = via.login.clone().expect("a login");
        assert_eq!(
            (&*login.user, login.mechanism),
            ("scanner@example.com", "XOAUTH2")
        );
    }
    let requests = provider.tokens.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].value("grant_type"), "client_credentials");
    assert_eq!(
        requests[0].value("scope"),
        "https://outlook.office365.com/.default"
    );
    let heard = provider.heard(&outbound).await;
    assert_eq!((heard.len(), logins(&heard[0])), (1, vec![FIRST]));
}

/// OAUTHBEARER is the better one where both are offered; the password mechanisms do not count.
#[tokio::test]
async fn oauthbearer_is_chosen_where_it_is_offered() {
    let accepted = [("AUTH", 0, "235 2.7.0 ok")];
    let offered = &["AUTH PLAIN SCRAM-SHA-256 OAUTHBEARER XOAUTH2"];
    let provider = Provider::start(vec![token("first")], offered, &accepted).await;
    let outbound = provider.outbound();
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
    let heard = provider.heard(&outbound).await;
    assert!(logins(&heard[0])[0].starts_with("AUTH OAUTHBEARER bixhPXNjYW5uZXJAZXhhbXBsZS5jb20s"));
}

/// A token can be revoked before it expires: another one is fetched, and tried on a connection of
/// its own.
#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let answers = [
        (FIRST, 0, "535 5.7.3 Authentication unsuccessful"),
        (SECOND, 0, "235 2.7.0 ok"),
    ];
    let script = vec![token("first"), token("second")];
    let provider = Provider::start(script, &["AUTH XOAUTH2"], &answers).await;
    let outbound = provider.outbound();
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
    let heard = provider.heard(&outbound).await;
    let all: Vec<_> = heard.iter().map(logins).collect();
    assert_eq!(all, [vec![FIRST], vec![SECOND]]);
    assert!(!heard[0].has("MAIL") && heard[0].has("QUIT"), "{heard:?}");
}

/// If the next token is refused too, the message waits, with what an administrator can check. Until
/// there is another token, the host is not asked twice in an attempt.
#[tokio::test]
async fn a_second_refusal_defers_the_message() {
    let answers = [("AUTH", 0, "535 5.7.3 Authentication unsuccessful")];
    let script = vec![token("first"), token("second"), token("third")];
    let provider = Provider::start(script, &["AUTH XOAUTH2"], &answers).await;
    let outbound = provider.outbound();
    for connections in [2, 3] {
        let report = deliver(&outbound, message(&["b@partner.example"])).await;
        assert_eq!(outcome(&report, 0), "deferred 4.7.3", "{report:?}");
        let text = failure(&report, 0).to_string();
        assert!(
            text.contains("rejected our login (XOAUTH2) with: 535 5.7.3 Authentication unsuccessful (the token server gives tokens"),
            "{text}"
        );
        let heard = provider.heard(&outbound).await;
        assert_eq!(heard.len(), connections, "{heard:?}");
        assert!(
            heard
                .iter()
                .all(|heard| logins(heard).len() == 1 && !heard.has("MAIL"))
        );
    }
    assert_eq!(provider.tokens.requests().len(), 2);
}

/// A host that has trouble says nothing against the token: no other one is fetched.
#[tokio::test]
async fn a_host_that_cannot_check_a_token_now_does_not_cost_it() {
    let answers = [("AUTH", 0, "454 4.7.0 Temporary authentication failure")];
    let script = vec![token("first"), token("second")];
    let provider = Provider::start(script, &["AUTH XOAUTH2"], &answers).await;
    let outbound = provider.outbound();
    for connections in [1, 2] {
        let report = deliver(&outbound, message(&["b@partner.example"])).await;
        let outcome = outcome(&report, 0);
        assert!(outcome.starts_with("deferred 4.7."), "{report:?}");
        let heard = provider.heard(&outbound).await;
        assert_eq!(heard.len(), connections, "{heard:?}");
        for heard in &heard {
            assert!(!heard.has("MAIL"), "{heard:?}");
            assert_eq!(logins(heard), [FIRST]);
        }
    }
    assert_eq!(provider.tokens.requests().len(), 1);
}

/// Without a token nothing is said of a login, and the reason is in the provider's words.
#[tokio::test]
async fn without_a_token_the_message_waits() {
    let refusal = json(
        "401 Unauthorized",
        "{\"error\":\"invalid_client\",\"error_description\":\"AADSTS7000222: The provided client secret keys are expired.\"}",
    );
    let provider = Provider::start(vec![refusal], &["AUTH XOAUTH2"], &[]).await;
    let outbound = provider.outbound();
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.0", "{report:?}");
    let text = failure(&report, 0).to_string();
    for part in [
        "a login is needed, and there is no access token",
        "AADSTS7000222",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("s3cret"), "{text}");
    for heard in provider.heard(&outbound).await {
        assert!(!heard.has("AUTH") && !heard.has("MAIL"), "{heard:?}");
    }
}

/// A token is for the mechanisms that send one: PLAIN would take it for a password.
#[tokio::test]
async fn a_host_without_token_mechanisms_gets_no_token() {
    let provider = Provider::start(vec![token("first")], &["AUTH PLAIN LOGIN"], &[]).await;
    let outbound = provider.outbound();
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.0", "{report:?}");
    let text = failure(&report, 0).to_string();
    assert!(text.contains("neither XOAUTH2 nor OAUTHBEARER"), "{text}");
    assert_eq!(provider.tokens.requests().len(), 0);
    let heard = provider.heard(&outbound).await;
    assert!(!heard[0].has("AUTH") && !heard[0].has("MAIL"), "{heard:?}");
}

/// Under an exception no token is sent, and none is fetched.
#[tokio::test]
async fn under_an_exception_no_token_is_fetched() {
    let provider = Provider::start(vec![token("first")], &["AUTH XOAUTH2"], &[]).await;
    let outbound = provider.outbound_with(
        "exception = { tls = \"opportunistic\", until = \"2099-12-31\", reason = \"a test\" }",
    );
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.0", "{report:?}");
    assert_eq!(provider.tokens.requests().len(), 0);
    let heard = provider.heard(&outbound).await;
    assert!(!heard[0].has("AUTH") && !heard[0].has("MAIL"), "{heard:?}");
}
