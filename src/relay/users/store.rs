//! The users of `[users] file`, which is read again when it changes.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use aws_lc_rs::{hmac, rand};

use crate::config::{
    Config, Fault, ITERATIONS, MailUser, StoredPassword, UserList, parse_users, read_users_text,
};
use crate::smtp::sasl::scram::{SALT_SIZE, ScramKey, ScramVerifier};

/// The users of one configuration.
#[derive(Debug)]
pub struct UserStore {
    /// `None` if the configuration has no users.
    file: Option<PathBuf>,
    current: ArcSwap<LoadedUsers>,
    /// The text that was read last, or the fault that kept it from being read.
    last: Mutex<Result<String, Fault>>,
}

/// One version of the file.
#[derive(Debug)]
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
            current: ArcSwap::from_pointee(LoadedUsers::of(UserList::default())),
            last: Mutex::new(Ok(String::new())),
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
        let list = parse_users(&text, &file)?;
        Ok(Arc::new(Self {
            file: Some(file),
            current: ArcSwap::from_pointee(LoadedUsers::of(list)),
            last: Mutex::new(Ok(text)),
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
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == read {
            return Ok(None);
        }
        last.clone_from(&read);
        let users = parse_users(&read.map_err(|fault| vec![fault])?, file)?;
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

/// Fills a buffer with random octets.
pub(super) fn fill(octets: &mut [u8]) {
    // The generator of aws-lc has no failure that a program could survive.
    if rand::fill(octets).is_err() {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::path::Path;

    use super::*;
    use crate::config;

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
