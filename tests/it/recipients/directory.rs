//! A directory that is searched: a small LDAP server of the test's own, with and without TLS, and
//! hostile ones.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::world::Relay;
use crate::support::certificates::{Authority, BOTH, server_config};

/// The behaviour of the directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Conduct {
    /// Finds entries for values that begin with `user`.
    Honest,
    /// Sends a reference to another server with each answer.
    Refers,
    /// Answers a search with the result `referral`.
    ReferralResult,
    /// Answers a bind with `invalidCredentials`.
    RefusesLogin,
    /// Answers a search with this result code.
    Fails(u8),
    /// Answers a search for a value that begins with `odd` with this result code, and is honest
    /// otherwise.
    FailsAt(u8),
    /// Closes the connection at a search for such a value.
    ClosesAt,
    /// Sends something that is not LDAP at a search for such a value.
    GarbageAt,
    /// Sends something that is not LDAP.
    Garbage,
    /// Announces a message of two gigabytes.
    Huge,
    /// Sends an entry of 70,000 octets.
    Large,
    /// Answers another request than that of the relay.
    OtherRequest,
    /// Has more entries than the relay wants, and says so.
    TooMany,
    /// Sends references without end.
    Endless,
    /// Closes the connection at a search.
    Closes,
    /// Answers one search, and closes the connection.
    Leaves,
    /// Finds more than one entry, and says that there are more.
    FindsMany,
    /// Answers with the number of another request.
    WrongNumber,
    /// Finds an entry for every value.
    SaysYes,
    /// Never answers a search.
    Hangs,
    /// Answers STARTTLS, and more in the clear behind it.
    Injects,
}

/// A directory server. It keeps the requests that it received.
struct DirectoryServer {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    task: JoinHandle<()>,
}

impl Drop for DirectoryServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One LDAP message of less than 128 octets.
fn message(id: u8, operation: u8, content: &[u8]) -> Vec<u8> {
    let length = |content: &[u8]| u8::try_from(content.len()).expect("a short message");
    let mut inner = vec![2, 1, id, operation, length(content)];
    inner.extend_from_slice(content);
    let mut out = vec![0x30, length(&inner)];
    out.extend_from_slice(&inner);
    out
}

fn result(id: u8, operation: u8, code: u8) -> Vec<u8> {
    message(id, operation, &[10, 1, code, 4, 0, 4, 0])
}

/// An entry with a name of 70,000 octets, well formed.
fn large_entry(id: u8) -> Vec<u8> {
    let long = |tag: u8, content: &[u8]| {
        let length = u32::try_from(content.len()).expect("short enough");
        let mut out = vec![tag, 0x84];
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(content);
        out
    };
    let content = [long(4, &vec![b'x'; 70_000]), vec![0x30, 0]].concat();
    long(0x30, &[vec![2, 1, id], long(0x64, &content)].concat())
}

impl DirectoryServer {
    async fn start(conduct: Conduct, tls: Option<(TlsAcceptor, bool)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let heard = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let requests = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a client");
                let (requests, tls) = (Arc::clone(&requests), tls.clone());
                tokio::spawn(async move {
                    // The relay may close the connection at any time.
                    let _ = connection(stream, conduct, tls, &requests).await;
                });
            }
        });
        Self {
            address,
            heard,
            task,
        }
    }

    /// True if a request contains these octets.
    fn has_heard(&self, octets: &[u8]) -> bool {
        let heard = self.heard.lock().expect("no panic");
        heard
            .iter()
            .any(|request| request.windows(octets.len()).any(|window| window == octets))
    }

    fn searches(&self) -> usize {
        let heard = self.heard.lock().expect("no panic");
        heard
            .iter()
            .filter(|request| operation(request) == 0x63)
            .count()
    }
}

fn operation(request: &[u8]) -> u8 {
    request[usize::from(request[1] & 0x80 != 0) + 5]
}

async fn connection(
    mut stream: TcpStream,
    conduct: Conduct,
    tls: Option<(TlsAcceptor, bool)>,
    heard: &Mutex<Vec<Vec<u8>>>,
) -> std::io::Result<()> {
    if let Some((acceptor, is_implicit)) = tls {
        if !is_implicit {
            let request = read(&mut stream).await?;
            heard.lock().expect("no panic").push(request);
            let mut answer = result(1, 0x78, 0);
            if conduct == Conduct::Injects {
                answer.extend_from_slice(&result(2, 0x61, 0));
            }
            stream.write_all(&answer).await?;
        }
        return serve(acceptor.accept(stream).await?, conduct, heard).await;
    }
    serve(stream, conduct, heard).await
}

/// Reads one request; the length has one or two octets.
async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Vec<u8>> {
    let mut request = vec![0; 2];
    stream.read_exact(&mut request).await?;
    let mut length = usize::from(request[1]);
    if request[1] == 0x81 {
        request.push(stream.read_u8().await?);
        length = usize::from(request[2]);
    }
    let header = request.len();
    request.resize(header + length, 0);
    stream.read_exact(&mut request[header..]).await?;
    Ok(request)
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    conduct: Conduct,
    heard: &Mutex<Vec<Vec<u8>>>,
) -> std::io::Result<()> {
    loop {
        let request = read(&mut stream).await?;
        heard.lock().expect("no panic").push(request.clone());
        let header = usize::from(request[1] & 0x80 != 0) + 2;
        let id = request[header + 2];
        let entry = message(id, 0x64, &[4, 3, b'o', b'=', b'x', 0x30, 0]);
        let reference = message(
            id,
            0x73,
            &[4, 8, b'l', b'd', b'a', b'p', b':', b'/', b'/', b'x'],
        );
        let done = result(id, 0x65, 0);
        let has = |value: &[u8]| request.windows(value.len()).any(|window| window == value);
        let (found, is_odd) = (has(b"smtp:user@"), has(b"smtp:odd"));
        let answer = match (operation(&request), conduct) {
            (0x60, Conduct::RefusesLogin) => result(id, 0x61, 49),
            (0x60, _) => result(id, 0x61, 0),
            (_, Conduct::FailsAt(code)) if is_odd => result(id, 0x65, code),
            (_, Conduct::ClosesAt) if is_odd => return Ok(()),
            (_, Conduct::GarbageAt) if is_odd => b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            (
                _,
                Conduct::Honest
                | Conduct::Injects
                | Conduct::RefusesLogin
                | Conduct::FailsAt(_)
                | Conduct::ClosesAt
                | Conduct::GarbageAt
                | Conduct::Leaves,
            ) => {
                if found {
                    [entry, done].concat()
                } else {
                    done
                }
            }
            (_, Conduct::SaysYes) => [entry, done].concat(),
            (_, Conduct::FindsMany) if found => [entry, result(id, 0x65, 4)].concat(),
            (_, Conduct::FindsMany) => done,
            (_, Conduct::WrongNumber) => result(id + 1, 0x65, 0),
            (_, Conduct::Refers) if found => [reference, entry, done].concat(),
            (_, Conduct::Refers) => [reference, done].concat(),
            (_, Conduct::ReferralResult) => result(id, 0x65, 10),
            (_, Conduct::Fails(code)) => result(id, 0x65, code),
            (_, Conduct::Garbage) => b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            (_, Conduct::Huge) => vec![0x30, 0x84, 0x7f, 0xff, 0xff, 0xff],
            (_, Conduct::Large) => [large_entry(id), done].concat(),
            (_, Conduct::OtherRequest) => result(id.wrapping_add(1), 0x65, 0),
            (_, Conduct::TooMany) if found => [entry, result(id, 0x65, 4)].concat(),
            (_, Conduct::TooMany) => done,
            (_, Conduct::Endless) => reference.repeat(1000),
            (_, Conduct::Closes) => return Ok(()),
            (_, Conduct::Hangs) => std::future::pending().await,
        };
        stream.write_all(&answer).await?;
        stream.flush().await?;
        if conduct == Conduct::Leaves && operation(&request) == 0x63 {
            return Ok(());
        }
    }
}

/// A table that searches a server on this machine, without TLS.
fn plain(address: SocketAddr, more: &str) -> String {
    table(&format!("ldap://{address}"), more)
}

fn table(url: &str, more: &str) -> String {
    format!(
        "[[recipients]]\ndomains = [\"example.com\"]\nfrom = \"ldap\"\nurl = \"{url}\"\n\
         base = \"dc=example,dc=com\"\nfilter = \"(proxyAddresses=smtp:%s)\"\n{more}\n"
    )
}

#[tokio::test]
async fn recipients_that_a_directory_has_exist() {
    let server = DirectoryServer::start(Conduct::Honest, None).await;
    let relay = Relay::start(&plain(server.address, ""), &[]).await;
    for (to, wanted) in [
        ("user@example.com", "250 2.1.5"),
        ("nobody@example.com", "550 5.1.1"),
        ("user+tag@example.com", "550 5.1.1"),
        ("postmaster@example.com", "250 2.1.5"),
        ("user@example.com", "250 2.1.5"),
        ("USER@example.com", "250 2.1.5"),
    ] {
        let reply = relay.rcpt(to).await;
        assert!(reply.starts_with(wanted), "{to}: {reply}");
    }
    relay.ends().await;
    assert!(server.has_heard(b"smtp:user@example.com"));
    assert!(
        server.has_heard(b"smtp:gatepost-"),
        "a random address is tried"
    );
    // The first, the random one, the second and the third.
    assert_eq!(server.searches(), 4);
}

/// Not every mailbox server has plus-tags, and a directory does not say so.
#[tokio::test]
async fn a_tag_counts_as_none_where_the_administrator_says_so() {
    for (keys, of_user) in [
        ("", "550 5.1.1"),
        ("plus_tags = false", "550 5.1.1"),
        ("plus_tags = true", "250 2.1.5"),
    ] {
        let server = DirectoryServer::start(Conduct::Honest, None).await;
        let relay = Relay::start(&plain(server.address, keys), &[]).await;
        for (to, wanted) in [
            ("user+tag@example.com", of_user),
            ("nobody+tag@example.com", "550 5.1.1"),
            ("user@example.com", "250 2.1.5"),
        ] {
            let reply = relay.rcpt(to).await;
            assert!(reply.starts_with(wanted), "{keys}, {to}: {reply}");
        }
        relay.ends().await;
        let is_untagged = server.has_heard(b"smtp:nobody@example.com");
        assert_eq!(is_untagged, keys == "plus_tags = true", "{keys}");
    }
}

/// A client chooses the address that is searched for. However the directory fails at an odd one, it
/// is searched for others, unless the failure is about the server, the login or the base.
#[tokio::test]
async fn what_a_directory_answers_about_one_mailbox_is_no_trouble_with_others() {
    let about_mailbox = [2, 3, 4, 11, 12, 18, 21, 34, 53, 80].map(Conduct::FailsAt);
    let about_server = [1, 8, 10, 13, 32, 49, 50, 51, 52].map(Conduct::FailsAt);
    let of_mailbox = [&about_mailbox[..], &[Conduct::ClosesAt, Conduct::GarbageAt]].concat();
    for (conducts, wanted) in [
        (&of_mailbox[..], "250 2.1.5"),
        (&about_server[..], "451 4.4.3"),
    ] {
        for conduct in conducts {
            let server = DirectoryServer::start(*conduct, None).await;
            let relay = Relay::start(&plain(server.address, ""), &[]).await;
            let reply = relay.rcpt("odd@example.com").await;
            assert!(reply.starts_with("451 4.4.3"), "{conduct:?}: {reply}");
            let reply = relay.rcpt("user@example.com").await;
            assert!(reply.starts_with(wanted), "{conduct:?}: {reply}");
            relay.ends().await;
        }
    }
}

/// An address is a value of the filter, whatever is in it.
#[tokio::test]
async fn an_address_is_never_a_part_of_the_filter() {
    let server = DirectoryServer::start(Conduct::Honest, None).await;
    let relay = Relay::start(&plain(server.address, ""), &[]).await;
    for (to, octets) in [
        ("*@example.com", &b"smtp:*@example.com"[..]),
        (
            "\"*)(mail=*\"@example.com",
            b"smtp:\"*)(mail=*\"@example.com",
        ),
        ("%s@example.com", b"smtp:%s@example.com"),
    ] {
        let reply = relay.rcpt(to).await;
        assert!(reply.starts_with("550 5.1.1"), "{to}: {reply}");
        // An equality match (tag 0xa3) of one attribute with one value.
        let mut filter = vec![0xa3, u8::try_from(octets.len() + 18).expect("short"), 4, 14];
        filter.extend_from_slice(b"proxyAddresses");
        filter.extend_from_slice(&[4, u8::try_from(octets.len()).expect("short")]);
        filter.extend_from_slice(octets);
        assert!(server.has_heard(&filter), "{to}");
    }
    relay.ends().await;
}

#[tokio::test]
async fn without_an_answer_of_the_directory_on_trouble_decides() {
    for conduct in [
        Conduct::ReferralResult,
        Conduct::Fails(1),
        Conduct::Fails(32),
        Conduct::Fails(50),
        Conduct::Garbage,
        Conduct::Huge,
        Conduct::Large,
        Conduct::OtherRequest,
        Conduct::Endless,
        Conduct::Closes,
        Conduct::WrongNumber,
    ] {
        for (on_trouble, wanted) in [("", "451 4.4.3"), ("on_trouble = \"accept\"", "250 2.1.5")] {
            let server = DirectoryServer::start(conduct, None).await;
            let relay = Relay::start(&plain(server.address, on_trouble), &[]).await;
            let reply = relay.rcpt("user@example.com").await;
            assert!(
                reply.starts_with(wanted),
                "{conduct:?}, {on_trouble}: {reply}"
            );
            relay.ends().await;
            assert_eq!(server.searches(), 1, "{conduct:?}");
        }
    }
}

/// One entry is enough, and no more is asked for.
#[tokio::test]
async fn an_address_that_several_entries_have_exists() {
    let server = DirectoryServer::start(Conduct::FindsMany, None).await;
    let relay = Relay::start(&plain(server.address, ""), &[]).await;
    for (to, wanted) in [
        ("user@example.com", "250 2.1.5"),
        ("nobody@example.com", "550 5.1.1"),
    ] {
        let reply = relay.rcpt(to).await;
        assert!(reply.starts_with(wanted), "{to}: {reply}");
    }
    relay.ends().await;
}

/// Servers close connections that are idle, and restart.
#[tokio::test]
async fn a_kept_connection_that_the_server_has_closed_is_replaced() {
    let server = DirectoryServer::start(Conduct::Leaves, None).await;
    let relay = Relay::start(&plain(server.address, ""), &[]).await;
    for (to, wanted) in [
        ("user@example.com", "250 2.1.5"),
        ("nobody@example.com", "550 5.1.1"),
        ("nobody2@example.com", "550 5.1.1"),
    ] {
        let reply = relay.rcpt(to).await;
        assert!(reply.starts_with(wanted), "{to}: {reply}");
    }
    relay.ends().await;
}

/// References are not followed, and are no answer about a mailbox: Active Directory sends them with
/// each search of its root.
#[tokio::test]
async fn references_to_other_servers_are_not_followed() {
    let server = DirectoryServer::start(Conduct::Refers, None).await;
    let relay = Relay::start(&plain(server.address, ""), &[]).await;
    assert!(
        relay
            .rcpt("user@example.com")
            .await
            .starts_with("250 2.1.5")
    );
    assert!(
        relay
            .rcpt("nobody@example.com")
            .await
            .starts_with("550 5.1.1")
    );
    relay.ends().await;
}

/// One entry is asked for: that there are more is no trouble, and no answer without an entry.
#[tokio::test]
async fn more_entries_than_one_are_a_mailbox_too() {
    let server = DirectoryServer::start(Conduct::TooMany, None).await;
    let relay = Relay::start(&plain(server.address, ""), &[]).await;
    for (to, wanted) in [
        ("user@example.com", "250 2.1.5"),
        ("nobody@example.com", "550 5.1.1"),
    ] {
        let reply = relay.rcpt(to).await;
        assert!(reply.starts_with(wanted), "{to}: {reply}");
    }
    relay.ends().await;
}

/// A filter that finds an entry for every address is no check.
#[tokio::test]
async fn a_directory_that_finds_everybody_counts_as_no_check() {
    let server = DirectoryServer::start(Conduct::SaysYes, None).await;
    let relay = Relay::start(&plain(server.address, ""), &[]).await;
    for to in ["one@example.com", "two@example.com", "three@example.com"] {
        assert!(relay.rcpt(to).await.starts_with("250 2.1.5"), "{to}");
    }
    relay.ends().await;
    assert_eq!(server.searches(), 2);
}

/// A directory that hangs holds up the clients that ask it, and no others.
#[tokio::test]
async fn a_directory_that_hangs_holds_up_nobody_else() {
    let server = DirectoryServer::start(Conduct::Hangs, None).await;
    let elsewhere = super::world::file("known@elsewhere.example\n").replace(
        "\"example.com\", \"all.example.com\"",
        "\"elsewhere.example\"",
    );
    let tables = format!("{}{elsewhere}", plain(server.address, ""));
    let relay = Relay::start(&tables, &[]).await;
    let mut waiting = relay.client().await;
    waiting.asks("MAIL FROM:<a@sender.example>", "250").await;
    waiting.says("RCPT TO:<user@example.com>").await;
    crate::support::in_process::until("the directory is asked", || {
        (server.searches() > 0).then_some(())
    })
    .await;
    for (to, wanted) in [
        ("known@elsewhere.example", "250"),
        ("nobody@elsewhere.example", "550 5.1.1"),
        ("postmaster@example.com", "250"),
    ] {
        assert!(relay.rcpt(to).await.starts_with(wanted), "{to}");
    }
    waiting.hears_nothing().await;
    drop(waiting);
    relay.ends().await;
}

/// The password, in a file, with its name.
fn login(password: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, format!("{password}\n")).expect("the folder is ours");
    let keys = format!(
        "bind_dn = \"cn=gatepost,dc=example,dc=com\"\npassword_file = \"{}\"\n",
        file.display()
    );
    (folder, keys)
}

#[tokio::test]
async fn a_login_comes_before_the_search() {
    let (_folder, keys) = login("a secret");
    let server = DirectoryServer::start(Conduct::Honest, None).await;
    let relay = Relay::start(&plain(server.address, &keys), &[]).await;
    assert!(
        relay
            .rcpt("user@example.com")
            .await
            .starts_with("250 2.1.5")
    );
    relay.ends().await;
    assert!(server.has_heard(b"\x04\x1dcn=gatepost,dc=example,dc=com\x80\x08a secret"));

    let server = DirectoryServer::start(Conduct::RefusesLogin, None).await;
    let relay = Relay::start(&plain(server.address, &keys), &[]).await;
    assert!(
        relay
            .rcpt("user@example.com")
            .await
            .starts_with("451 4.4.3")
    );
    // It is left alone for a while, whatever the mailbox.
    let reply = relay.rcpt("other@example.com").await;
    assert!(reply.starts_with("451 4.4.3"), "{reply}");
    relay.ends().await;
    assert_eq!(server.searches(), 0, "no search without the login");
    assert_eq!(server.heard.lock().expect("no panic").len(), 1, "one login");
}

fn acceptor(authority: &Authority, name: &str) -> TlsAcceptor {
    TlsAcceptor::from(Arc::new(server_config(&authority.issue(&[name]), BOTH)))
}

/// A name of this machine (RFC 6761).
const NAME: &str = "dc1.directory.localhost";

/// TLS from the first octet, and by STARTTLS. The password is sent under TLS alone, to a server whose
/// certificate is trusted and has its name.
#[tokio::test]
async fn the_server_must_prove_its_name_before_it_hears_the_password() {
    let (_folder, keys) = login("a secret");
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (Authority::root("ours"), Authority::root("theirs"));
    let trust = folder.path().join("ours.pem");
    std::fs::write(&trust, ours.pem()).expect("the folder is ours");
    let trust = format!("trust = \"{}\"\n", trust.display());
    for is_implicit in [true, false] {
        for (authority, name, wanted) in [
            (&ours, NAME, "250 2.1.5"),
            (&ours, "other.localhost", "451 4.4.3"),
            (&theirs, NAME, "451 4.4.3"),
        ] {
            let acceptor = acceptor(authority, name);
            let server =
                DirectoryServer::start(Conduct::Honest, Some((acceptor, is_implicit))).await;
            let port = server.address.port();
            let (scheme, starttls) = if is_implicit {
                ("ldaps", "")
            } else {
                ("ldap", "starttls = true\n")
            };
            let more = format!("{keys}{trust}{starttls}");
            let table = table(&format!("{scheme}://{NAME}:{port}"), &more);
            let relay = Relay::start(&table, &[]).await;
            let reply = relay.rcpt("user@example.com").await;
            assert!(reply.starts_with(wanted), "{scheme} {name}: {reply}");
            relay.ends().await;
            let is_good = wanted.starts_with("250");
            assert_eq!(server.has_heard(b"a secret"), is_good, "{scheme} {name}");
        }
    }
}

#[tokio::test]
async fn clear_text_behind_starttls_ends_the_connection() {
    let (_folder, keys) = login("a secret");
    let folder = tempfile::tempdir().expect("a folder");
    let ours = Authority::root("ours");
    let trust = folder.path().join("ours.pem");
    std::fs::write(&trust, ours.pem()).expect("the folder is ours");
    let acceptor = acceptor(&ours, NAME);
    let server = DirectoryServer::start(Conduct::Injects, Some((acceptor, false))).await;
    let more = format!("{keys}trust = \"{}\"\nstarttls = true\n", trust.display());
    let url = format!("ldap://{NAME}:{}", server.address.port());
    let relay = Relay::start(&table(&url, &more), &[]).await;
    assert!(
        relay
            .rcpt("user@example.com")
            .await
            .starts_with("451 4.4.3")
    );
    relay.ends().await;
    assert!(!server.has_heard(b"a secret"));
}
