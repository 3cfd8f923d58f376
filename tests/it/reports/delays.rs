//! The reports that a sender gets about a message that is late.

use crate::support::in_process::{SENDER, World, connector, peer, queue, until};
use crate::support::peer::Nobody;

const LATE: &str = "[queue]\nretry = [\"1h\"]\nexpire = \"5d\"\nwarn_after = \"300ms\"";
const SECRET: &str = "Subject: minutes\r\n\r\nThe very words.\r\n";

#[tokio::test]
async fn a_delay_names_the_demand_that_was_not_met_host_by_host() {
    let (first, second) = (
        peer(&[], &[]).await,
        peer(&[], &[("EHLO", "550 no"), ("HELO", "550 no")]).await,
    );
    let two = format!(
        "[[connector]]\nname = \"partner\"\ndomains = [\"partner.example\"]\nnames = [\"mail.partner.example\"]\n\
         [connector.outbound]\nroute = [\"{}\", \"{}\"]\ntls = \"forced\"\nverify = \"name\"\n",
        first.address, second.address
    );
    let world = World::start(LATE, &[two]).await;
    world
        .sends("<alice@sender.example>", &["<bob@partner.example>"], SECRET)
        .await;
    until("the notice has come", || world.reports().pop()).await;
    let report = world.one_report(SENDER);
    let bob = report.only("bob@partner.example", "delayed", "4.7.4");
    for words in [
        &*first
            .address
            .to_string()
            .replace("127.0.0.1", "[127.0.0.1]"),
        &*second
            .address
            .to_string()
            .replace("127.0.0.1", "[127.0.0.1]"),
        "TLS with a trusted certificate for mail.partner.example is demanded",
        "does not offer STARTTLS",
        "550 no",
        "A WARNING ONLY",
        "The mail system relay.example.com passes mail for partner.example on only encrypted and only to a server that proves its \
         identity, because its administrators decided so.",
        "But the next mail server does not offer encryption at present.",
        "Please reach the recipient in another way if it is urgent",
        "The administrators of relay.example.com: <postmaster@",
    ] {
        assert!(
            report.text.contains(words),
            "{words:?} is missing from\n{}",
            report.text
        );
    }
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).expect("a date").timestamp();
    let left =
        date(bob.get("Will-Retry-Until")).duration_since(date(report.message.get("Arrival-Date")));
    assert!((left.as_secs() - 5 * 24 * 3600).abs() < 60, "{left:?}");
    assert_eq!(report.returned.0, "text/rfc822-headers");
    assert!(
        !report.whole.contains("The very words."),
        "content of a message under a forced policy"
    );
    assert!(
        first
            .heard()
            .iter()
            .chain(&second.heard())
            .all(|heard| !heard.has("MAIL"))
    );
    world.ends().await;
}

#[tokio::test]
async fn a_delay_is_reported_once_and_not_again_after_a_restart() {
    let down = Nobody::at([127, 0, 0, 1]);
    let connectors = [connector("down.example", down.address, "")];
    let before = LATE.replace("1h", "100ms");
    let world = World::start(&before, &connectors).await;
    let id = world
        .sends("<alice@sender.example>", &["<bob@down.example>"], SECRET)
        .await;
    until("the notice has come", || world.reports().pop()).await;
    let attempts = |world: &World| {
        let queue = queue(world.folder.path());
        let message = queue
            .into_iter()
            .find(|(name, _)| *name == id)
            .expect("it waits");
        let pending = &message.1["recipients"][0]["state"]["pending"];
        (pending["warned"] == true).then(|| pending["attempts"].as_u64().expect("a number"))
    };
    // The notice can arrive before the state of its recipient is stored.
    let before_the_restart = until("the notice is on record", || attempts(&world)).await;
    let connectors = [connector("down.example", down.address, "")];
    let (folder, home) = world.ends().await;
    let config =
        crate::support::in_process::configured(folder.path(), home.address, &before, &connectors);
    let (address, running) = crate::support::in_process::run(config, std::sync::Arc::new(())).await;
    let world = World {
        home,
        address,
        folder,
        running,
    };
    until("it is tried again", || {
        attempts(&world).filter(|now| *now > before_the_restart + 1)
    })
    .await;
    world
        .one_report(SENDER)
        .only("bob@down.example", "delayed", "4.4.1");
    world.ends().await;
}

#[tokio::test]
async fn who_wants_no_delays_hears_of_none() {
    let slow = peer(&[], &[("RCPT", "451 4.2.1 later")]).await;
    let world = World::start(LATE, &[connector("slow.example", slow.address, "")]).await;
    let to = [
        "<never@slow.example> NOTIFY=NEVER",
        "<failure@slow.example> NOTIFY=SUCCESS,FAILURE",
        "<delay@slow.example> NOTIFY=DELAY",
        "<nothing@slow.example>",
    ];
    world.sends("<alice@sender.example>", &to, SECRET).await;
    until("the notice has come", || world.reports().pop()).await;
    let report = world.one_report(SENDER);
    let told = |to: &str| (to.to_owned(), "delayed".to_owned(), "4.2.1".to_owned());
    assert_eq!(
        report.tells(),
        [told("delay@slow.example"), told("nothing@slow.example")]
    );
    world.ends().await;
}
