//! The keys of `[[recipients]]` in a configuration.

use std::path::Path;
use std::time::Duration;

use gatepost::config::{self, OnTrouble, RecipientSource, TrustSource};
use gatepost::policy::directory::DirectoryTls;

#[test]
fn tables_of_recipients_are_resolved() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/config_good/recipients.toml");
    let (config, warnings) = config::read(&path).unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert_eq!(warnings, []);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/config_good");
    let [asked, listed, searched] = &config.recipients[..] else {
        panic!("three tables are written")
    };
    assert_eq!(asked.name(), "example.com");
    assert_eq!(asked.source, RecipientSource::Ask);
    assert_eq!(
        (asked.cache, asked.cache_of_no(), asked.on_trouble),
        (
            Duration::from_mins(30),
            Duration::from_mins(3),
            OnTrouble::Accept
        )
    );
    assert_eq!(listed.name(), "*.example.com");
    assert_eq!((listed.plus_tags, searched.plus_tags), (false, true));
    let RecipientSource::File(file) = &listed.source else {
        panic!("{:?}", listed.source)
    };
    assert_eq!(file.value, folder.join("recipients.txt"));
    let RecipientSource::Ldap(directory) = &searched.source else {
        panic!("{:?}", searched.source)
    };
    let url = &directory.url.value;
    assert_eq!(
        (url.to_string().as_str(), url.tls),
        ("ldap://dc1.example.com:389", DirectoryTls::StartTls)
    );
    let trust = directory.trust.as_ref().expect("it is written");
    assert_eq!(trust.value, TrustSource::File(folder.join("ca.pem")));
    let login = directory.login.as_ref().expect("it is written");
    assert_eq!(login.bind_dn, "CN=gatepost,DC=example,DC=com");
    assert_eq!(login.password_file.value, folder.join("directory.password"));
    assert_eq!(directory.base, "DC=example,DC=com");
    assert_eq!(directory.filter.as_str(), "(proxyAddresses=smtp:%s)");
}
