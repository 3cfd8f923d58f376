//! `gatepost connector add`: the file that follows from what the hosts show, and the cases without
//! one. No test sends mail, which [`commands`] checks.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use gatepost::demo::policy_host::PolicyHost;
use rcgen::DnType;

use super::world::{Answer, HOP, WHOLE, World, commands, connector, showing, tls};
use crate::support::certificates::{Authority, BOTH, key_pin, self_signed, server_config};
use crate::support::internet::policy;
use crate::support::peer::{Manner, Nobody, Peer, Starttls};
use crate::support::proxy::{ESTABLISHED, Proxy, ProxyPart};

/// The host of other.example.
const MX: &str = "mx1.partner.example";

/// A world whose configuration includes the folder `d`, with a connector for all other mail.
struct Partners(World);

impl Partners {
    /// `outbound` is what all other mail goes by.
    async fn new(outbound: &str) -> Self {
        Self::including("include = [\"d/*.toml\"]\n", outbound).await
    }

    async fn including(include: &str, outbound: &str) -> Self {
        Self::of(World::new().await, include, outbound)
    }

    fn of(world: World, include: &str, outbound: &str) -> Self {
        fs::create_dir(world.folder.path().join("d")).expect("our own folder");
        world.write(&connector("internet", &["*"], outbound));
        let text = fs::read_to_string(world.file()).expect("our own file");
        fs::write(world.file(), format!("{include}{text}")).expect("our own file");
        Self(world)
    }

    /// The same, with hosts of MX records at the port of a peer.
    async fn at(peer: &Peer) -> Self {
        Self::new(&format!("port = {}", peer.address.port())).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.folder.path().join("d").join(name)
    }

    async fn add(&self, arguments: &[&str]) -> Answer {
        let arguments = [&["connector", "add"], arguments].concat();
        self.0.run("500", &arguments).await
    }

    /// Returns the file of other.example. The program reads it, and has nothing to say against it.
    async fn file(&self) -> String {
        let answer = self.0.run("500", &["check"]).await;
        answer.ends(0);
        assert_eq!(answer.err, "");
        fs::read_to_string(self.path("other.example.toml")).expect("the file is written")
    }

    /// Asserts that the folder has these files alone.
    fn has_only(&self, names: &[&str]) {
        let entries = fs::read_dir(self.path("")).expect("our own folder");
        let mut found: Vec<_> = entries
            .map(|entry| {
                entry
                    .expect("readable")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .collect();
        found.sort();
        assert_eq!(found, names);
    }
}

fn has(text: &str, words: &str) {
    assert!(text.contains(words), "{words:?} is not in\n{text}");
}

fn lacks(text: &str, words: &str) {
    assert!(!text.contains(words), "{words:?} is in\n{text}");
}

#[tokio::test]
async fn a_trusted_certificate_leads_to_its_name() {
    let authority = Authority::root("The Test Authority");
    let peer = showing(&authority.issue(&[MX, "www.partner.example"])).await;
    let partners = Partners::at(&peer).await;
    fs::write(partners.0.folder.path().join("ca.pem"), authority.pem()).expect("our own folder");
    let answer = partners.add(&["other.example"]).await;
    answer
        .ends(0)
        .has("Mail to other.example\n")
        .has("connector   other.example: its pattern \"other.example\" matches other.example")
        .has("TLS with a trusted certificate for mx1.partner.example")
        .has("other.example.toml is written.\n")
        .has("Next: read it, then run `gatepost check` and `gatepost reload`.\n")
        .lacks("CAUTION");
    let file = partners.file().await;
    let port = peer.address.port();
    has(
        &file,
        "[[connector]]\nname = \"other.example\"\ndomains = [\"other.example\"]\n",
    );
    has(&file, "\nnames = [\"mx1.partner.example\"]\n");
    has(
        &file,
        &format!("[connector.outbound]\nport = {port}\ntls = \"forced\" "),
    );
    has(&file, "\nverify = \"name\" ");
    let comments = file.replace("\n# ", " ");
    for words in [
        "certificate CN=a host for mx1.partner.example, www.partner.example; issued by CN=The Test",
        "Neither DANE nor MTA-STS was found",
        "went by the connector \"internet\" before",
    ] {
        has(&comments, words);
    }
    lacks(&file, "pins");
    assert_eq!(commands(&peer).await, [WHOLE, WHOLE]);
    partners
        .0
        .probe(&["other.example"])
        .await
        .ends(0)
        .has("met: verified as mx1");
}

/// A partner whose domain publishes an MTA-STS policy, and the host that serves it, which the program
/// reaches through a proxy.
struct Publisher {
    peer: Peer,
    policies: PolicyHost,
    proxy: Proxy,
    partners: Partners,
}

impl Publisher {
    /// The policy is `mode`, and lists this host.
    async fn new(mode: &str, listed: &str) -> Self {
        let world = World::with("_mta-sts.other.example TXT v=STSv1; id=1;\n").await;
        let peer = world.good(&[MX]).await;
        let pair = world.authority.issue(&["mta-sts.other.example"]);
        let policies = PolicyHost::start(Arc::new(server_config(&pair, BOTH)));
        let policies = policies.await.expect("loopback");
        policies.publish("other.example", &policy(mode, &[listed]));
        let proxy = Proxy::start(ProxyPart::Leads(ESTABLISHED, policies.port)).await;
        let outbound = format!(
            "port = {}\n[net]\nhttp_proxy = \"{}\"",
            peer.address.port(),
            proxy.url()
        );
        let partners = Partners::of(world, "include = [\"d/*.toml\"]\n", &outbound);
        Self {
            peer,
            policies,
            proxy,
            partners,
        }
    }

    /// Asserts that the policy was fetched, and from nowhere else.
    fn was_asked(&self) {
        assert!(self.policies.requests("other.example") > 0);
        for request in self.proxy.heard() {
            assert!(
                request.starts_with("CONNECT mta-sts.other.example:443 "),
                "{request}"
            );
        }
    }
}

/// The policy is in force without the connector too; the file says what it adds, and the host must
/// meet both.
#[tokio::test]
async fn a_published_policy_is_fetched_and_named_in_the_file() {
    for (mode, words) in [
        (
            "enforce",
            "MTA-STS: the domain's policy is in force for 1 of 1 host. It suffices",
        ),
        (
            "testing",
            "MTA-STS: the domain's policy is in testing mode, so it demands nothing.",
        ),
    ] {
        let publisher = Publisher::new(mode, MX).await;
        let partners = &publisher.partners;
        partners
            .add(&["other.example"])
            .await
            .ends(0)
            .has("TLS with a trusted certificate for mx1.partner.example")
            .has("other.example.toml is written.\n");
        publisher.was_asked();
        let file = partners.file().await;
        let comments = file.replace("\n# ", " ");
        has(&comments, words);
        lacks(&comments, "Neither DANE nor MTA-STS");
        has(&file, "\nnames = [\"mx1.partner.example\"]\n");
        has(&file, "\ntls = \"forced\" ");
        has(&file, "\nverify = \"name\" ");
        assert_eq!(commands(&publisher.peer).await, [WHOLE, WHOLE], "{mode}");
    }
}

/// No connector makes up for a policy that lists other hosts: mail does not go to this one.
#[tokio::test]
async fn a_policy_that_does_not_list_the_host_leads_to_no_file() {
    let publisher = Publisher::new("enforce", "mx9.partner.example").await;
    let answer = publisher.partners.add(&["other.example"]).await;
    answer.ends(1);
    assert_eq!(answer.out, "");
    has(&answer.err, "mx1.partner.example");
    has(&answer.err, "MTA-STS");
    publisher.was_asked();
    publisher.partners.has_only(&[]);
    for heard in commands(&publisher.peer).await {
        assert!(heard.is_empty() || heard.last().is_some_and(|last| last == "QUIT"));
    }
}

/// A certificate for another name than that of the host: the names are there to be compared.
#[tokio::test]
async fn a_trusted_certificate_of_another_name_leads_to_the_names_that_it_has() {
    let authority = Authority::root("The Test Authority");
    let peer = showing(&authority.issue(&["mail.hoster.example", "*.hoster.example"])).await;
    let partners = Partners::at(&peer).await;
    fs::write(partners.0.folder.path().join("ca.pem"), authority.pem()).expect("our own folder");
    partners.add(&["other.example"]).await.ends(0);
    let file = partners.file().await;
    has(
        &file,
        "names = [\"mail.hoster.example\", \"*.hoster.example\"]\n",
    );
    has(
        &file.replace("\n# ", " "),
        "(not for the host's own name: compare these names with the partner)",
    );
}

#[tokio::test]
async fn a_certificate_without_a_trusted_authority_leads_to_a_pin_and_a_caution() {
    let stranger = Authority::root("Stranger CA");
    for (pair, why) in [
        (self_signed(&[MX], |_| {}), "NOT TRUSTED: it is self-signed"),
        (
            stranger.issue(&[MX]),
            "NOT TRUSTED: its issuer (CN=Stranger CA) is not trusted",
        ),
    ] {
        let peer = showing(&pair).await;
        let partners = Partners::at(&peer).await;
        partners
            .add(&["other.example"])
            .await
            .ends(0)
            .has("CAUTION: the keys in it were seen once.");
        let file = partners.file().await;
        has(
            &file,
            &format!("\npins = [\"{}\"]\n", key_pin(&pair.chain[0])),
        );
        has(&file, "\nverify = \"pin\" ");
        lacks(&file, "\nnames");
        let comments = file.replace("\n# ", " ");
        has(&comments, why);
        let today = jiff::Timestamp::now().strftime("%Y-%m-").to_string();
        has(
            &comments,
            &format!("CAUTION: these keys were seen once, on {today}"),
        );
        has(&comments, "Compare them with the partner");
        assert_eq!(commands(&peer).await, [WHOLE, WHOLE]);
    }
}

/// A connector that nobody can meet would only stop mail.
#[tokio::test]
async fn a_partner_without_tls_gets_no_file() {
    for (starttls, why) in [
        (Starttls::NotOffered, "the peer does not offer STARTTLS"),
        (
            Starttls::Answered("454 4.7.0 not now"),
            "the peer refused STARTTLS: 454 4.7.0 not now",
        ),
    ] {
        let peer = Peer::start(Manner::new(starttls)).await;
        let partners = Partners::at(&peer).await;
        for arguments in [&["other.example"][..], &["other.example", "--stdout"]] {
            let answer = partners.add(arguments).await;
            answer.ends(1);
            assert_eq!(answer.out, "");
            has(
                &answer.err,
                "no host of other.example has TLS: mx1.partner.example [127.0.0.1]:",
            );
            has(&answer.err, why);
            has(&answer.err, "Ask the partner to switch STARTTLS on");
        }
        partners.has_only(&[]);
        for heard in commands(&peer).await {
            assert_eq!(heard.last().map(String::as_str), Some("QUIT"));
        }
    }
}

#[tokio::test]
async fn a_partner_without_hosts_or_whose_hosts_do_not_answer_gets_no_file() {
    let (nobody, _second) = Nobody::before(|| Manner::new(Starttls::NotOffered)).await;
    let partners = Partners::new(&format!("port = {}", nobody.address.port())).await;
    let answer = partners.add(&["other.example"]).await;
    answer.ends(1);
    has(
        &answer.err,
        "no host of other.example answered: mx1.partner.example [127.0.0.1]:",
    );
    has(&answer.err, "a firewall may block");
    let answer = partners.add(&["null.example"]).await;
    answer.ends(1);
    has(
        &answer.err,
        "null.example has no hosts for mail: null.example accepts no mail",
    );
    partners.has_only(&[]);
}

#[tokio::test]
async fn a_host_without_tls_beside_a_good_one_is_named_in_the_file() {
    let authority = Authority::root("The Test Authority");
    let pair = authority.issue(&["mx2.partner.example"]);
    let (first, second) =
        Peer::twins(Manner::new(Starttls::NotOffered), Manner::new(tls(&pair))).await;
    let partners = Partners::at(&first).await;
    fs::write(partners.0.folder.path().join("ca.pem"), authority.pem()).expect("our own folder");
    partners.add(&["partner.example"]).await.ends(0);
    let file = fs::read_to_string(partners.path("partner.example.toml")).expect("the file");
    has(&file, "names = [\"mx2.partner.example\"]\n");
    has(
        &file.replace("\n# ", " "),
        "NO TLS (the peer does not offer STARTTLS). No mail goes there by this connector.",
    );
    assert_eq!(commands(&second).await, [WHOLE, WHOLE]);
}

/// Whoever has the domain is named with its line, and nobody is dialled.
#[tokio::test]
async fn a_domain_that_has_a_connector_is_refused() {
    let peer = showing(&self_signed(&[MX], |_| {})).await;
    let partners = Partners::at(&peer).await;
    let theirs = "# theirs\n[[connector]]\nname = \"theirs\"\ndomains = [\"other.example\", \"*.below.example\"]\n";
    fs::write(partners.path("a.toml"), theirs).expect("our own folder");
    for (domain, pattern) in [
        ("other.example", "other.example"),
        ("bob@Other.Example", "other.example"),
        ("mail.below.example", "*.below.example"),
    ] {
        let answer = partners.add(&[domain]).await;
        answer.ends(1);
        has(&answer.err, "d/a.toml:4:11: connector \"theirs\" has ");
        has(&answer.err, &format!("by its pattern \"{pattern}\"."));
    }
    partners.has_only(&["a.toml"]);
    assert_eq!(commands(&peer).await, [[""; 0]; 0]);
}

#[tokio::test]
async fn a_file_is_never_overwritten_and_has_the_permissions_of_its_neighbours() {
    let peer = showing(&self_signed(&[MX], |_| {})).await;
    let partners = Partners::at(&peer).await;
    let beside = partners.path("a.toml");
    fs::write(&beside, "").expect("our own folder");
    let mode = |path: PathBuf| {
        let found = fs::metadata(path).expect("the file is there");
        found.permissions().mode() & 0o777
    };
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o640)).expect("our own file");
    partners.add(&["other.example"]).await.ends(0);
    assert_eq!(mode(partners.path("other.example.toml")), 0o640);
    fs::write(partners.path("third.example.toml"), "# mine\n").expect("our own folder");
    let heard = commands(&peer).await.len();
    let answer = partners.add(&["third.example"]).await;
    answer.ends(1);
    has(
        &answer.err,
        "third.example.toml exists already, and is not overwritten.",
    );
    assert_eq!(
        fs::read_to_string(partners.path("third.example.toml")).expect("ours"),
        "# mine\n"
    );
    partners.has_only(&["a.toml", "other.example.toml", "third.example.toml"]);
    assert_eq!(commands(&peer).await.len(), heard);
}

#[tokio::test]
async fn without_a_folder_for_it_the_file_needs_a_place() {
    let peer = showing(&self_signed(&[MX], |_| {})).await;
    let port = format!("port = {}", peer.address.port());
    for include in ["", "include = [\"d/a*.toml\"]\n"] {
        let partners = Partners::including(include, &port).await;
        fs::write(partners.path("a.toml"), "").expect("our own folder");
        let answer = partners.add(&["other.example"]).await;
        answer.ends(2);
        has(
            &answer.err,
            "Add this line at its top, before the first table:\n  include = [\"connectors.d/*.toml\"]\n",
        );
        let before = commands(&peer).await.len();
        let printed = partners.add(&["other.example", "--stdout"]).await;
        printed
            .ends(0)
            .has("verify = \"pin\" ")
            .lacks("Mail to other.example");
        has(&printed.err, "Mail to other.example\n");
        partners.has_only(&["a.toml"]);
        assert_eq!(commands(&peer).await.len(), before + 2);
        let path = partners.0.folder.path().join("mine.toml");
        let path = path.to_str().expect("UTF-8");
        partners
            .add(&["other.example", "--output", path])
            .await
            .ends(0)
            .has(&format!("does not include it: add \"{path}\" to the list"));
        assert!(
            fs::read_to_string(path)
                .expect("the file")
                .ends_with("# tls = \"forced\"\n")
        );
    }
}

/// The certificate of a smart host says nothing about the partner.
#[tokio::test]
async fn mail_that_goes_to_a_smart_host_needs_a_way() {
    let peer = showing(&self_signed(&[HOP], |_| {})).await;
    let way = format!("{HOP}:{}", peer.address.port());
    let partners = Partners::new(&format!("route = [\"{way}\"]")).await;
    let answer = partners.add(&["other.example"]).await;
    answer.ends(2);
    has(
        &answer.err,
        "goes to the smart hosts of connector \"internet\" now",
    );
    assert_eq!(commands(&peer).await, [[""; 0]; 0]);
    partners
        .add(&["other.example", "--route", &way, "--name", "The \"others\""])
        .await
        .ends(0);
    let file = partners.file().await;
    has(&file, &format!("route = [\"{way}\"]\n"));
    let answer = partners
        .add(&["third.example", "--route", "smtp://nonsense:x"])
        .await;
    answer.ends(2);
    has(&answer.err, "third.example.toml:");
    partners.has_only(&["other.example.toml"]);
}

/// The text of a peer stands in a comment, and never ends it.
#[tokio::test]
async fn a_certificate_cannot_write_into_the_file() {
    let pair = self_signed(&[MX], |params| {
        let name = "x\n[[connector]]\nname = \"evil\"\r\u{7}";
        params.distinguished_name.push(DnType::CommonName, name);
    });
    let peer = showing(&pair).await;
    let partners = Partners::at(&peer).await;
    partners
        .add(&["other.example"])
        .await
        .ends(0)
        .lacks("\u{7}");
    let file = partners.file().await;
    assert_eq!(file.matches("\n[[connector]]").count(), 1, "{file}");
    lacks(&file, "\u{7}");
}
