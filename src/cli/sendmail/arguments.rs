//! The words behind `sendmail`, as Postfix and Exim read them.
//!
//! Forty years of programs pass flags that mean nothing here. Those are read and passed over, together with
//! their values; what would do something else than is asked for is refused.

use std::path::PathBuf;

use super::exit::{Sysexit, Unsent};
use crate::envelope::{Notify, Ret};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// `-bm`, the default: take a message from standard input.
    Message,
    /// `-bs`: speak SMTP on standard input and output.
    Smtp,
    /// `-bp`, `mailq`: list the queue.
    List,
    /// `-q`: try everything that waits now.
    Flush,
    /// `-bi`, `-I`, `newaliases`: there are no aliases, so they are up to date.
    Aliases,
}

/// Everything that was said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) mode: Mode,
    /// `-C`: the configuration.
    pub(super) config: PathBuf,
    /// `-t`: recipients stand in the header, too.
    pub(super) from_header: bool,
    /// `-i`, `-oi`: a line with a single dot does not end the message.
    pub(super) dots: Dots,
    /// `-f`, `-r`: the sender of the envelope.
    pub(super) sender: Option<String>,
    /// `-F`: the sender's name, for a From field that is missing.
    pub(super) full_name: Option<String>,
    /// `-N` (RFC 3461 §4.1).
    pub(super) notify: Option<Notify>,
    /// `-R` (RFC 3461 §4.3).
    pub(super) ret: Option<Ret>,
    /// `-V` (RFC 3461 §4.4), as xtext.
    pub(super) envid: Option<String>,
    pub(super) recipients: Vec<String>,
}

/// What a line with a single dot means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dots {
    /// The end of the message, as in the days of terminals.
    End,
    /// A dot.
    Content,
}

/// Flags that have a value, in the same word or in the next one.
const WITH_VALUE: &str = "ABCFLNORVXbefhopr";
/// Flags whose value can only stand in the same word.
const ATTACHED: &str = "dq";
/// Flags that stand alone, and can be joined.
const ALONE: &str = "GIUcimnstvx";

impl Wanted {
    /// Reads the words, without the program's name.
    ///
    /// # Errors
    /// What makes them unusable: exit status 64.
    pub(super) fn read(mode: Mode, config: PathBuf, words: &[String]) -> Result<Self, Unsent> {
        let mut wanted = Self {
            mode,
            config,
            from_header: false,
            dots: Dots::End,
            sender: None,
            full_name: None,
            notify: None,
            ret: None,
            envid: None,
            recipients: Vec::new(),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.strip_prefix('-') {
                Some("-") => {
                    wanted.recipients.extend(words.by_ref().cloned());
                }
                // The one flag of ours: everybody else's have one hyphen.
                Some("-config") => {
                    let file = words.next().ok_or_else(|| usage("--config stands without its file"))?;
                    wanted.config = PathBuf::from(file);
                }
                Some(long) if long.starts_with("-config=") => {
                    wanted.config = PathBuf::from(long.trim_start_matches("-config="));
                }
                Some(long) if long.starts_with('-') => return Err(usage(format!("there is no flag {word}"))),
                Some(flags) if !flags.is_empty() => wanted.flags(word, flags, &mut words)?,
                _ => wanted.recipients.push(word.clone()),
            }
        }
        Ok(wanted)
    }

    /// One word of flags: several that stand alone, and perhaps one with a value at its end.
    fn flags(&mut self, word: &str, flags: &str, words: &mut std::slice::Iter<'_, String>) -> Result<(), Unsent> {
        for (at, flag) in flags.char_indices() {
            let rest = &flags[at + flag.len_utf8()..];
            if ATTACHED.contains(flag) {
                return self.value(flag, rest);
            }
            if WITH_VALUE.contains(flag) {
                let value = match rest {
                    "" => words.next().ok_or_else(|| usage(format!("-{flag} stands without its value")))?,
                    rest => rest,
                };
                return self.value(flag, value);
            }
            if !ALONE.contains(flag) {
                return Err(usage(format!("{word}: there is no flag -{flag}")));
            }
            match flag {
                'i' => self.dots = Dots::Content,
                't' => self.from_header = true,
                'I' => self.mode = Mode::Aliases,
                // -v, -m, -n …: nothing that is done differently here.
                _ => {}
            }
        }
        Ok(())
    }

    fn value(&mut self, flag: char, value: &str) -> Result<(), Unsent> {
        match flag {
            'b' => self.mode = mode(value)?,
            'q' => self.mode = Mode::Flush,
            'C' => self.config = PathBuf::from(value),
            'f' | 'r' => self.sender = Some(value.to_owned()),
            'F' => self.full_name = Some(value.to_owned()),
            'o' if value.starts_with('i') => self.dots = Dots::Content,
            'N' => self.notify = Some(notify(value)?),
            'R' => {
                self.ret = Some(match value.to_ascii_lowercase().as_str() {
                    "full" => Ret::Full,
                    "hdrs" => Ret::Hdrs,
                    _ => return Err(usage(format!("-R {value}: write -R full or -R hdrs"))),
                });
            }
            'V' => self.envid = Some(xtext(value)),
            // -oem, -O, -B, -h, -X, -d …: how errors are told, bodies declared and hops counted is settled here.
            _ => {}
        }
        Ok(())
    }
}

fn mode(value: &str) -> Result<Mode, Unsent> {
    match value {
        "m" => Ok(Mode::Message),
        "s" => Ok(Mode::Smtp),
        "p" => Ok(Mode::List),
        "i" => Ok(Mode::Aliases),
        "d" | "D" => Err(usage("-bd: the daemon is started with `gatepost run` or `systemctl start gatepost`")),
        _ => Err(usage(format!("-b{value} is not supported: -bm, -bs, -bp and -bi are"))),
    }
}

fn notify(value: &str) -> Result<Notify, Unsent> {
    if value.eq_ignore_ascii_case("never") {
        return Ok(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for word in value.split(',') {
        match word.trim().to_ascii_lowercase().as_str() {
            "success" => success = true,
            "failure" => failure = true,
            "delay" => delay = true,
            _ => return Err(usage(format!("-N {value}: write never, or some of success, failure and delay"))),
        }
    }
    Ok(Notify::On { success, failure, delay })
}

/// Any text, as RFC 3461 §4 lets it stand in a command.
fn xtext(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut all, octet| {
        match octet {
            b'+' | b'=' => {}
            b'!'..=b'~' => {
                all.push(char::from(octet));
                return all;
            }
            _ => {}
        }
        // Writing into a String cannot fail.
        let _ = write!(all, "+{octet:02X}");
        all
    })
}

fn usage(message: impl Into<String>) -> Unsent {
    Unsent::new(Sysexit::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Result<Wanted, Unsent> {
        let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
        Wanted::read(Mode::Message, PathBuf::from("default"), &words)
    }

    fn good(words: &str) -> Wanted {
        read(words).unwrap_or_else(|error| panic!("{words}: {error}"))
    }

    #[test]
    fn what_cron_php_and_mailx_say_is_understood() {
        // cron, PHP's mail(), bsd-mailx, git send-email, mutt.
        let cron = good("-i -FCronDaemon -B8BITMIME -oem root");
        assert_eq!(
            (cron.dots, cron.recipients, cron.full_name),
            (Dots::Content, vec!["root".into()], Some("CronDaemon".into()))
        );
        let php = good("-t -i");
        assert!(php.from_header && php.dots == Dots::Content);
        assert!(good("-ti").from_header && good("-oi -t").from_header);
        let git = good("-f me@a.example -i b@a.example c@a.example");
        assert_eq!((git.sender.as_deref(), git.recipients.len()), (Some("me@a.example"), 2));
        let mutt = good("-oem -oi -fme@a.example -N failure,delay -R hdrs -- -odd@a.example");
        assert_eq!(mutt.recipients, ["-odd@a.example"]);
        assert_eq!(mutt.notify, Some(Notify::On { success: false, failure: true, delay: true }));
        assert_eq!((mutt.ret, mutt.dots), (Some(Ret::Hdrs), Dots::Content));
    }

    #[test]
    fn what_means_nothing_here_takes_its_value_with_it() {
        let wanted = good(
            "-v -G -U -n -m -d8.100 -O DeliveryMode=b -oA/etc/aliases -o em -X log -L tag -h 5 -p SMTP b@a.example",
        );
        assert_eq!(wanted.recipients, ["b@a.example"]);
        assert_eq!((wanted.mode, wanted.dots), (Mode::Message, Dots::End));
        assert_eq!(good("-bs").mode, Mode::Smtp);
        assert_eq!(good("-b p").mode, Mode::List);
        assert_eq!(good("-q30m").mode, Mode::Flush);
        assert_eq!(good("-bi").mode, Mode::Aliases);
        assert_eq!(good("-C other.toml x").config, PathBuf::from("other.toml"));
        assert_eq!(good("-V a+b x").envid.as_deref(), Some("a+2Bb"));
    }

    #[test]
    fn flags_count_behind_recipients_too() {
        let wanted = good("b@a.example -t -f me@a.example c@a.example -i --config other.toml -N never");
        assert_eq!(wanted.recipients, ["b@a.example", "c@a.example"]);
        assert!(wanted.from_header && wanted.dots == Dots::Content);
        assert_eq!((wanted.sender.as_deref(), wanted.notify), (Some("me@a.example"), Some(Notify::Never)));
        assert_eq!(wanted.config, PathBuf::from("other.toml"));
        assert_eq!(good("b@a.example --config=x.toml -- --config").config, PathBuf::from("x.toml"));
        assert_eq!(good("b@a.example -bp").mode, Mode::List);
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for (words, said) in [
            ("-bd", "systemctl start gatepost"),
            ("-bz", "-bz is not supported"),
            ("-f", "-f stands without its value"),
            ("-tK b@a.example", "there is no flag -K"),
            ("-N sometimes", "never, or some of success"),
            ("b@a.example --confg x", "there is no flag --confg"),
            ("b@a.example --config", "--config stands without its file"),
        ] {
            let error = read(words).expect_err(words);
            assert_eq!(error.status, Sysexit::Usage);
            assert!(error.to_string().contains(said), "{words}: {error}");
        }
    }
}
