//! The users of `[users] file`, which is read again when it changes.

use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use aws_lc_rs::{digest, hmac, rand};

use crate::config::{
    Config, Fault, ITERATIONS, MailUser, StoredPassword, UserList, parse_users, read_users_text,
};
use crate::policy::connector::Connectors;
use crate::smtp::sasl::scram::{SALT_SIZE, ScramKey, ScramVerifier};

/// The users of one configuration.
pub struct UserStore {
    /// `None` if the configuration has no users.
    file: Option<PathBuf>,
    /// The connectors that users may name; `None` without users.
    connectors: Option<Connectors>,
    current: ArcSwap<LoadedUsers>,
    /// The SHA-256 of the text that was read last, or the fault that kept it from being read.
    last: Mutex<Result<TextHash, Fault>>,
}

type TextHash = [u8; 32];

/// Shows no secret.
impl fmt::Debug for UserStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserStore")
            .field("file", &self.file)
            .field("users", &self.count())
            .finish_non_exhaustive()
    }
}

/// One version of the file.
struct LoadedUsers {
    list: UserList,
    decoys: Decoys,
}

impl UserStore {
    /// Returns a store without users.
    #[must_use]
    pub fn none() -> Arc<Self> {
        Arc::new(Self {
            file: None,
            connectors: None,
            current: ArcSwap::from_pointee(LoadedUsers::of(UserList::default())),
            last: Mutex::new(Ok(hash_of(""))),
        })
    }

    /// Reads the users of a configuration. Blocks.
    ///
    /// # Errors
    /// All faults of the file.
    pub fn load(config: &Config) -> Result<Arc<Self>, Vec<Fault>> {
        let Some(users) = &config.users else {
            return Ok(Self::none());
        };
        let file = users.file.value.clone();
        let text = read_users_text(&file).map_err(|fault| vec![fault])?;
        let connectors = config.connectors();
        let list = checked(parse_users(&text, &file)?, &file, Some(&connectors))?;
        Ok(Arc::new(Self {
            file: Some(file),
            connectors: Some(connectors),
            current: ArcSwap::from_pointee(LoadedUsers::of(list)),
            last: Mutex::new(Ok(hash_of(&text))),
        }))
    }

    /// Reads the file again if it has changed. Returns the number of users if they were replaced.
    /// Blocks.
    ///
    /// # Errors
    /// All faults of the new version, once; the old one stays in use.
    pub fn refresh(&self) -> Result<Option<usize>, Vec<Fault>> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let read = read_users_text(file);
        let hash = read.as_deref().map(hash_of).map_err(Clone::clone);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == hash {
            return Ok(None);
        }
        *last = hash;
        let users = parse_users(&read.map_err(|fault| vec![fault])?, file)?;
        let users = checked(users, file, self.connectors.as_ref())?;
        let count = users.count();
        self.current.store(Arc::new(LoadedUsers::of(users)));
        Ok(Some(count))
    }

    /// Returns the user of a prepared name.
    #[must_use]
    pub fn get(&self, prepared: &str) -> Option<Arc<MailUser>> {
        self.current.load().list.get(prepared).cloned()
    }

    /// Returns the number of users.
    #[must_use]
    pub fn count(&self) -> usize {
        self.current.load().list.count()
    }

    /// Returns the hash to check for a name, and true if it is that of a user.
    #[must_use]
    pub fn password(&self, prepared: &str) -> (StoredPassword, bool) {
        let loaded = self.current.load();
        match loaded.list.get(prepared) {
            Some(user) => (user.password.clone(), true),
            None => (loaded.decoys.password.clone(), false),
        }
    }

    /// Returns the keys for SCRAM of a name, and true if they are those of a user.
    #[must_use]
    pub fn verifier(&self, prepared: &str) -> (ScramVerifier, bool) {
        let loaded = self.current.load();
        let user = loaded.list.get(prepared);
        match user.and_then(|user| user.scram.clone()) {
            Some(verifier) => (verifier, true),
            None => (loaded.decoys.verifier(prepared), false),
        }
    }
}

/// Returns users that may log in by this configuration: their connectors are all in it, and unknown
/// names have salts that stay.
fn checked(
    users: UserList,
    file: &Path,
    connectors: Option<&Connectors>,
) -> Result<UserList, Vec<Fault>> {
    let unknown = connectors.map(|connectors| users.unknown_connectors(connectors));
    let faults: Vec<_> = users
        .missing_secret(file)
        .into_iter()
        .chain(unknown.into_iter().flatten())
        .collect();
    if faults.is_empty() {
        Ok(users)
    } else {
        Err(faults)
    }
}

impl LoadedUsers {
    fn of(list: UserList) -> Self {
        let decoys = Decoys::of(&list);
        Self { list, decoys }
    }
}

/// Passwords and keys for names that no user has. To a client they look like those of a user.
#[derive(Debug)]
pub struct Decoys {
    password: StoredPassword,
    iterations: NonZeroU32,
    /// The key from which the salt of a name follows: it must always be the same.
    salts: hmac::Key,
}

impl Decoys {
    fn of(list: &UserList) -> Self {
        let (mut salt, mut hash) = ([0; SALT_SIZE], [0; 32]);
        fill(&mut salt);
        fill(&mut hash);
        let iterations = list
            .sorted()
            .iter()
            .find_map(|user| user.scram.as_ref())
            .map_or(ITERATIONS, |verifier| verifier.iterations);
        let mut random = [0; 32];
        fill(&mut random);
        let secret = list.salt_secret.as_deref().unwrap_or(&random);
        Self {
            password: StoredPassword::decoy(&salt, &hash, list.cost.unwrap_or_default()),
            iterations,
            salts: hmac::Key::new(hmac::HMAC_SHA256, secret),
        }
    }

    /// Returns keys for which nobody can make a proof.
    fn verifier(&self, name: &str) -> ScramVerifier {
        let salt = hmac::sign(&self.salts, name.as_bytes());
        let mut key = [0; 32];
        fill(&mut key);
        ScramVerifier {
            salt: salt.as_ref()[..SALT_SIZE].to_vec(),
            iterations: self.iterations,
            stored_key: ScramKey::new(key),
            server_key: ScramKey::new(key),
        }
    }
}

fn hash_of(text: &str) -> TextHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    hash
}

/// Fills a buffer with random octets.
pub(super) fn fill(octets: &mut [u8]) {
    // The generator of aws-lc has no failure that a program could survive.
    if rand::fill(octets).is_err() {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    const HASH: &str = "$argon2id$v=19$m=4096,t=1,p=1$BwcHBwcHBwcHBwcHBwcHBw$CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg";

    fn write(path: &Path, names: &[&str]) {
        let mut file = std::fs::OpenOptions::new();
        let mut file = file
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .expect("ours");
        writeln!(file, "salt_secret = \"AAAAAAAAAAAAAAAAAAAAAA==\"").expect("ours");
        for name in names {
            writeln!(file, "[[user]]\nname = \"{name}\"\npassword = \"{HASH}\"").expect("ours");
        }
    }

    fn store(path: &Path) -> Arc<UserStore> {
        let text = format!(
            "hostname = \"relay.example.com\"\npostmaster = \"p@example.com\"\n[users]\nfile = \"{}\"\n\
             [[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:0\"]\ntls = \"off\"\n",
            path.display()
        );
        let (config, _) = config::parse(&text, Path::new("gatepost.toml")).expect("good");
        UserStore::load(&config).expect("good users")
    }

    #[test]
    fn a_changed_file_is_read_and_a_broken_one_is_reported_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users.toml");
        write(&path, &["a"]);
        let store = store(&path);
        assert_eq!(store.refresh(), Ok(None), "nothing has changed");
        write(&path, &["a", "b"]);
        assert_eq!(store.refresh(), Ok(Some(2)));
        write(&path, &["a", "A"]);
        let faults = store.refresh().expect_err("a name twice");
        assert_eq!((faults.len(), faults[0].location.line), (1, 6));
        assert_eq!(
            (store.refresh(), store.count()),
            (Ok(None), 2),
            "the old users stay"
        );
        std::fs::remove_file(&path).expect("ours");
        assert!(store.refresh().is_err() && store.refresh() == Ok(None));
        write(&path, &["c"]);
        assert_eq!(store.refresh(), Ok(Some(1)));
        assert!(store.get("c").is_some() && store.get("a").is_none());
    }

    /// Salts that change with each start would show which names are those of users.
    #[test]
    fn keys_for_scram_need_the_secret_of_the_salts() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users.toml");
        write(&path, &["a"]);
        let store = store(&path);
        let keys = ScramVerifier::derive(
            &crate::smtp::sasl::Password::new("x").expect("usable"),
            &[7; SALT_SIZE],
            ITERATIONS,
        );
        let line = format!("scram = \"{}\"\n", config::write_verifier(&keys));
        let text = std::fs::read_to_string(&path).expect("ours") + &line;
        let (_, without_secret) = text.split_once('\n').expect("a line");
        std::fs::write(&path, without_secret).expect("ours");
        let faults = store.refresh().expect_err("no secret");
        assert!(
            faults[0].message.contains("salt_secret is missing"),
            "{faults:?}"
        );
        std::fs::write(&path, text).expect("ours");
        assert_eq!(store.refresh(), Ok(Some(1)));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users.toml");
        write(&path, &["a"]);
        let store = store(&path);
        let shown = format!("{store:?} {:?}", store.current.load().list);
        assert!(
            !shown.contains("argon2") && !shown.contains("salt_secret"),
            "{shown}"
        );
        assert!(
            shown.contains("users: 1") && shown.contains("count: 1"),
            "{shown}"
        );
    }

    #[test]
    fn unknown_names_have_stable_salts_and_the_costs_of_users() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users.toml");
        write(&path, &["a"]);
        let (first, second) = (store(&path), store(&path));
        let salt = |store: &UserStore, name| store.verifier(name).0.salt;
        assert_eq!(
            salt(&first, "nobody"),
            salt(&second, "nobody"),
            "it outlives a restart"
        );
        assert_ne!(salt(&first, "nobody"), salt(&first, "somebody"));
        let (user, is_user) = first.password("a");
        let (decoy, is_decoy) = first.password("nobody");
        assert_eq!(
            (is_user, is_decoy, user.cost()),
            (true, false, decoy.cost())
        );
        assert!(
            !first.verifier("a").1,
            "a user without keys looks like none"
        );
    }
}
