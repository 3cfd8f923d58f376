//! `gatepost user`: the users that may log in, in the file that `[users] file` names.
//!
//! A changed file is checked before it replaces the old one. A running relay reads it within a
//! minute. Exit status: 0; 1 if there is no such user, or the user exists already; 2 for unusable
//! arguments, passwords or files.

mod password_input;
mod user_file;

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::config_file::ConfigFile;
use super::format::{Table, plain, width};
use super::json::JsonArray;
use super::output::{show, show_faults};
use crate::config::{
    self, Config, ITERATIONS, MailUser, SettingValue, StoredPassword, UserKey, UserList, add_user,
    remove_user, set_keys, write_verifier,
};
use crate::smtp::sasl::scram::{SALT_SIZE, ScramVerifier};
use crate::smtp::sasl::{Password, prepare_name};
use password_input::read_password;
use user_file::{UserFile, UserFileError};

/// Add, change, list or remove the users that may log in
///
/// The users are in the file that [users] file names in the configuration. A password is asked for
/// on the terminal, or read from standard input; it is never an argument. A running relay reads the
/// changed file within a minute.
#[derive(Debug, Args)]
pub(super) struct UserArguments {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    Add(AddArguments),
    /// Set a new password; sessions that logged in with the old one send no more mail
    Passwd {
        /// The name
        #[arg(value_name = "NAME", value_parser = user_name)]
        name: String,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// List the users, without passwords
    List {
        /// Print one JSON document: an array of users
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Remove a user
    Remove {
        /// The name
        #[arg(value_name = "NAME", value_parser = user_name)]
        name: String,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Let a user log in no more, and keep its entry
    Disable {
        /// The name
        #[arg(value_name = "NAME", value_parser = user_name)]
        name: String,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Let a disabled user log in again
    Enable {
        /// The name
        #[arg(value_name = "NAME", value_parser = user_name)]
        name: String,
        #[command(flatten)]
        file: ConfigFile,
    },
}

/// Add a user, and the file if there is none
#[derive(Debug, Args)]
struct AddArguments {
    /// The name, compared without regard to case
    #[arg(value_name = "NAME", value_parser = user_name)]
    name: String,
    /// An address that the user may send from, or "*@example.com"; without this option, all
    #[arg(long = "sender", value_name = "ADDRESS")]
    senders: Vec<String>,
    /// Let the user use the null sender, besides --sender
    #[arg(long, requires = "senders")]
    null_sender: bool,
    /// Let the From field have the addresses of --sender alone
    #[arg(long, requires = "senders")]
    check_from: bool,
    /// A network from which the user may log in; without this option, all
    #[arg(long = "network", value_name = "NETWORK")]
    networks: Vec<String>,
    /// The most messages in an hour
    #[arg(long, value_name = "COUNT")]
    messages_per_hour: Option<u32>,
    /// The most recipients in an hour
    #[arg(long, value_name = "COUNT")]
    recipients_per_hour: Option<u32>,
    /// The connector by which the user's mail goes, in place of the recipients' own, whose demands hold
    /// as well
    #[arg(long, value_name = "CONNECTOR")]
    connector: Option<String>,
    /// Store no keys for SCRAM, which are easier to attack than the password's hash if the file is
    /// stolen; the user can log in with PLAIN and LOGIN alone
    #[arg(long)]
    without_scram: bool,
    #[command(flatten)]
    file: ConfigFile,
}

impl AddArguments {
    /// Returns the keys of the user in the file.
    fn keys(&self, secrets: Secrets) -> Vec<UserKey<'static>> {
        let list = |items: &[String]| match items {
            [] => SettingValue::Unset,
            items => SettingValue::List(items.iter().cloned().map(SettingValue::Text).collect()),
        };
        let number = |number: Option<u32>| number.map_or(SettingValue::Unset, SettingValue::from);
        let if_set = |is_set: bool, value| if is_set { value } else { SettingValue::Unset };
        vec![
            ("name", SettingValue::Text(self.name.clone())),
            ("password", secrets.password),
            ("scram", if_set(!self.without_scram, secrets.scram)),
            ("senders", list(&self.senders)),
            ("null_sender", if_set(self.null_sender, true.into())),
            ("check_from", if_set(self.check_from, true.into())),
            ("networks", list(&self.networks)),
            ("messages_per_hour", number(self.messages_per_hour)),
            ("recipients_per_hour", number(self.recipients_per_hour)),
            (
                "connector",
                self.connector
                    .clone()
                    .map_or(SettingValue::Unset, SettingValue::Text),
            ),
        ]
    }
}

impl UserCommand {
    fn file(&self) -> &Path {
        match self {
            Self::Add(AddArguments { file, .. })
            | Self::Passwd { file, .. }
            | Self::List { file, .. }
            | Self::Remove { file, .. }
            | Self::Disable { file, .. }
            | Self::Enable { file, .. } => &file.config,
        }
    }
}

/// Checks an argument that must be a user name.
fn user_name(text: &str) -> Result<String, String> {
    match prepare_name(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn run(arguments: &UserArguments) -> ExitCode {
    let file = arguments.command.file();
    let config = match config::read(file) {
        Ok((config, _)) => config,
        Err(faults) => {
            show_faults(file, &faults);
            return ExitCode::from(2);
        }
    };
    match execute(&arguments.command, &config) {
        Ok(status) => status,
        Err(UserFileError::Faults(path, faults)) => {
            show_faults(&path, &faults);
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("gatepost: {error}");
            ExitCode::from(2)
        }
    }
}

fn execute(command: &UserCommand, config: &Config) -> Result<ExitCode, UserFileError> {
    let file = UserFile::open(config)?;
    match command {
        UserCommand::List { json, .. } => {
            list(&file.users()?, *json);
            Ok(ExitCode::SUCCESS)
        }
        UserCommand::Add(arguments) => add(&file, arguments),
        UserCommand::Passwd { name, .. } => {
            let users = file.users()?;
            let Some(user) = user(&users, name) else {
                return Ok(unknown(name));
            };
            let has_scram = user.scram.is_some();
            let secrets = Secrets::of(&read_password()?, &users)?;
            let mut keys = vec![("password", secrets.password)];
            if has_scram {
                keys.push(("scram", secrets.scram));
            }
            edit(&file, name, &keys, "has a new password")
        }
        UserCommand::Disable { name, .. } => {
            edit(&file, name, &[("disabled", true.into())], "disabled")
        }
        UserCommand::Enable { name, .. } => {
            edit(&file, name, &[("disabled", SettingValue::Unset)], "enabled")
        }
        UserCommand::Remove { name, .. } => {
            if !exists(&file.users()?, name) {
                return Ok(unknown(name));
            }
            let text = remove_user(&file.text()?, name).ok_or(UserFileError::Form)?;
            file.replace(&text)?;
            Ok(changed("removed", name, &file))
        }
    }
}

fn user<'a>(users: &'a UserList, name: &str) -> Option<&'a MailUser> {
    let prepared = prepare_name(name).ok()?;
    users.get(&prepared).map(|user| &**user)
}

fn exists(users: &UserList, name: &str) -> bool {
    user(users, name).is_some()
}

fn add(file: &UserFile, arguments: &AddArguments) -> Result<ExitCode, UserFileError> {
    let (users, name) = (file.users_or_none()?, &arguments.name);
    if exists(&users, name) {
        eprintln!(
            "gatepost: the user {name} exists already; set a password with `gatepost user passwd {name}`"
        );
        return Ok(ExitCode::FAILURE);
    }
    // Arguments that the file cannot have are refused before a password is asked for.
    let trial = Secrets::of(&Password::new("trial")?, &users)?;
    file.check(&add_user(&file.text()?, &arguments.keys(trial)))?;
    let secrets = Secrets::of(&read_password()?, &users)?;
    file.replace(&add_user(&file.text_or_new()?, &arguments.keys(secrets)))?;
    Ok(changed("added", name, file))
}

fn edit(
    file: &UserFile,
    name: &str,
    keys: &[UserKey<'_>],
    done: &str,
) -> Result<ExitCode, UserFileError> {
    if !exists(&file.users()?, name) {
        return Ok(unknown(name));
    }
    let text = set_keys(&file.text()?, name, keys).ok_or(UserFileError::Form)?;
    file.replace(&text)?;
    Ok(changed(done, name, file))
}

fn unknown(name: &str) -> ExitCode {
    eprintln!("gatepost: there is no user {name}; `gatepost user list` lists all");
    ExitCode::FAILURE
}

fn changed(done: &str, name: &str, file: &UserFile) -> ExitCode {
    show(&format!(
        "{} {done} ({}); a running relay reads the file within a minute\n",
        plain(name),
        file.path().display()
    ));
    ExitCode::SUCCESS
}

/// The hash and the keys of a new password.
struct Secrets {
    password: SettingValue,
    scram: SettingValue,
}

impl Secrets {
    /// Derives them, at the costs of the other users of the file.
    fn of(password: &Password, users: &UserList) -> Result<Self, UserFileError> {
        let (mut salt, mut scram_salt) = ([0; SALT_SIZE], [0; SALT_SIZE]);
        user_file::random(&mut salt)?;
        user_file::random(&mut scram_salt)?;
        let cost = users.cost.unwrap_or_default();
        let hash = StoredPassword::derive(password, &salt, cost).ok_or(UserFileError::Cost)?;
        let iterations = users
            .sorted()
            .iter()
            .find_map(|user| user.scram.as_ref())
            .map_or(ITERATIONS, |verifier| verifier.iterations);
        let verifier = ScramVerifier::derive(password, &scram_salt, iterations);
        Ok(Self {
            password: SettingValue::Text(hash.phc().to_owned()),
            scram: SettingValue::Text(write_verifier(&verifier)),
        })
    }
}

/// A user as `--json` prints it.
#[derive(Debug, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a key of the document"
)]
struct ListedUser<'a> {
    name: &'a str,
    disabled: bool,
    scram: bool,
    /// `null` for all.
    senders: Option<Vec<String>>,
    null_sender: bool,
    check_from: bool,
    networks: Vec<String>,
    /// `null` for no limit.
    messages_per_hour: Option<u32>,
    /// `null` for no limit.
    recipients_per_hour: Option<u32>,
    /// `null` for the recipients' own.
    connector: Option<&'a str>,
}

impl<'a> ListedUser<'a> {
    fn of(user: &'a MailUser) -> Self {
        let texts = |senders: &Vec<config::SenderPattern>| {
            senders.iter().map(ToString::to_string).collect()
        };
        Self {
            name: &user.name,
            disabled: user.disabled,
            scram: user.scram.is_some(),
            senders: user.senders.as_ref().map(texts),
            null_sender: user.null_sender,
            check_from: user.check_from,
            messages_per_hour: user.messages_per_hour,
            recipients_per_hour: user.recipients_per_hour,
            networks: user.networks.iter().map(ToString::to_string).collect(),
            connector: user.connector.as_ref().map(|name| name.value.as_str()),
        }
    }
}

fn list(users: &UserList, json: bool) {
    let users: Vec<_> = users
        .sorted()
        .into_iter()
        .map(|user| ListedUser::of(user))
        .collect();
    if json {
        let mut array = JsonArray::begin(true);
        for user in &users {
            array.add(user);
        }
        array.end();
    } else if users.is_empty() {
        show("there are no users\n");
    } else {
        show(&table(&users).render(width()));
    }
}

/// Returns the limits of an hour in words.
fn hourly(user: &ListedUser<'_>) -> String {
    let limits = [
        (user.messages_per_hour, "messages"),
        (user.recipients_per_hour, "recipients"),
    ];
    let limits = limits
        .into_iter()
        .filter_map(|(most, noun)| Some(format!("{} {noun}", most?)));
    let limits: Vec<_> = limits.collect();
    if limits.is_empty() {
        "no limit".to_owned()
    } else {
        limits.join(", ")
    }
}

/// Returns a table with a line for each user.
fn table(users: &[ListedUser<'_>]) -> Table {
    let mut table = Table::new(&[
        "name",
        "state",
        "SCRAM",
        "senders",
        "networks",
        "an hour",
        "connector",
    ]);
    for user in users {
        let mut senders = user
            .senders
            .clone()
            .unwrap_or_else(|| vec!["all".to_owned()]);
        if user.senders.is_some() && user.null_sender {
            senders.push("<>".to_owned());
        }
        let networks = match &user.networks[..] {
            [] => "all".to_owned(),
            networks => networks.join(" "),
        };
        table.row([
            plain(user.name),
            if user.disabled { "disabled" } else { "enabled" }.to_owned(),
            if user.scram { "yes" } else { "no" }.to_owned(),
            plain(&senders.join(" ")),
            networks,
            hourly(user),
            plain(user.connector.unwrap_or("the recipients'")),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_user_and_no_secret() {
        let hash = "$argon2id$v=19$m=4096,t=1,p=1$BwcHBwcHBwcHBwcHBwcHBw$CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg";
        let text = format!(
            "[[user]]\nname = \"b\"\npassword = \"{hash}\"\nsenders = [\"b@example.com\", \"*@example.org\"]\nnull_sender = true\n\
             networks = [\"192.0.2.0/24\"]\nmessages_per_hour = 30\nconnector = \"smart\"\n[[user]]\nname = \"a\"\npassword = \"{hash}\"\ndisabled = true\n"
        );
        let users = config::parse_users(&text, Path::new("users.toml")).expect("good");
        let listed: Vec<_> = users
            .sorted()
            .into_iter()
            .map(|user| ListedUser::of(user))
            .collect();
        assert_eq!(
            table(&listed).render(100),
            "name  state     SCRAM  senders                         networks      an hour      connector\n\
             a     disabled  no     all                             all           no limit     the recipients'\n\
             b     enabled   no     b@example.com *@example.org <>  192.0.2.0/24  30 messages  smart\n"
        );
        let json = serde_json::to_string(&listed).expect("serialises");
        assert!(!json.contains("argon2"), "{json}");
    }
}
