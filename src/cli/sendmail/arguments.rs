//! The arguments of `sendmail`, as Postfix and Exim read them.
//!
//! Old programs pass many flags that have no effect here. These are ignored, together with their
//! values. A flag whose effect cannot be provided is an error.

use std::path::PathBuf;

use super::exit::{SendmailError, Sysexit};
use crate::cli::format::short;
use crate::smtp::envelope::{Notify, Ret};

/// The task that the arguments request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendmailMode {
    /// Send a message from standard input (`-bm`, the default).
    Message,
    /// Speak SMTP on standard input and output (`-bs`).
    Smtp,
    /// List the queue (`-bp`, `mailq`).
    List,
    /// Retry all messages in the queue (`-q`).
    Flush,
    /// Rebuild the aliases (`-bi`, `-I`, `newaliases`). There are none, so this does nothing.
    Aliases,
}

/// The parsed arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SendmailOptions {
    pub(super) mode: SendmailMode,
    /// The configuration file (`-C`, `--config`).
    pub(super) config: PathBuf,
    /// True if the header names recipients as well (`-t`).
    pub(super) from_header: bool,
    /// The meaning of a line with a single dot (`-i`, `-oi`).
    pub(super) dots: LoneDot,
    /// The sender of the envelope (`-f`, `-r`).
    pub(super) sender: Option<String>,
    /// The sender's full name, for a missing From field (`-F`).
    pub(super) full_name: Option<String>,
    /// The reports that the sender wants (`-N`, RFC 3461 §4.1).
    pub(super) notify: Option<Notify>,
    /// The part of the message that a report returns (`-R`, RFC 3461 §4.3).
    pub(super) ret: Option<Ret>,
    /// The envelope id as xtext (`-V`, RFC 3461 §4.4).
    pub(super) envid: Option<String>,
    /// The recipients, unparsed.
    pub(super) recipients: Vec<String>,
}

/// The meaning of a line with a single dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoneDot {
    /// The line ends the message.
    End,
    /// The line is content.
    Content,
}

/// The flags with a value, in the same argument or in the next one.
const WITH_VALUE: &str = "ABCFLNORVXbefhopr";
/// The flags with an optional value, which must be in the same argument.
const ATTACHED: &str = "dq";
/// The flags without a value, several of which can be in one argument.
const ALONE: &str = "GIUcimnstvx";

impl SendmailOptions {
    /// Parses the arguments, without the program's name. `mode` and `config` are the defaults.
    ///
    /// # Errors
    /// The arguments are unusable (exit status 64).
    pub(super) fn parse(
        mode: SendmailMode,
        config: PathBuf,
        arguments: &[String],
    ) -> Result<Self, SendmailError> {
        let mut options = Self {
            mode,
            config,
            from_header: false,
            dots: LoneDot::End,
            sender: None,
            full_name: None,
            notify: None,
            ret: None,
            envid: None,
            recipients: Vec::new(),
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.strip_prefix('-') {
                Some("-") => {
                    options.recipients.extend(arguments.by_ref().cloned());
                }
                // This is the only long flag, and Gatepost's own.
                Some("-config") => {
                    let file = arguments
                        .next()
                        .ok_or_else(|| usage("--config needs a file"))?;
                    options.config = PathBuf::from(file);
                }
                Some(long) if long.starts_with("-config=") => {
                    options.config = PathBuf::from(long.trim_start_matches("-config="));
                }
                Some(long) if long.starts_with('-') => {
                    return Err(usage(format!("unknown flag {}", short(argument))));
                }
                Some(flags) if !flags.is_empty() => {
                    options.set_flags(argument, flags, &mut arguments)?;
                }
                _ => options.recipients.push(argument.clone()),
            }
        }
        Ok(options)
    }

    /// Sets the flags of one argument: any number without a value, then at most one with a value.
    fn set_flags(
        &mut self,
        argument: &str,
        flags: &str,
        arguments: &mut std::slice::Iter<'_, String>,
    ) -> Result<(), SendmailError> {
        for (index, flag) in flags.char_indices() {
            let attached = &flags[index + flag.len_utf8()..];
            if ATTACHED.contains(flag) {
                return self.set_value(flag, attached);
            }
            if WITH_VALUE.contains(flag) {
                let value = match attached {
                    "" => arguments
                        .next()
                        .ok_or_else(|| usage(format!("-{flag} needs a value")))?,
                    attached => attached,
                };
                return self.set_value(flag, value);
            }
            if !ALONE.contains(flag) {
                return Err(usage(format!("{}: unknown flag -{flag}", short(argument))));
            }
            match flag {
                'i' => self.dots = LoneDot::Content,
                't' => self.from_header = true,
                'I' => self.mode = SendmailMode::Aliases,
                // -v, -m, -n and others have no effect here.
                _ => {}
            }
        }
        Ok(())
    }

    /// Sets a flag that has a value.
    fn set_value(&mut self, flag: char, value: &str) -> Result<(), SendmailError> {
        match flag {
            'b' => self.mode = mode(value)?,
            'q' => self.mode = SendmailMode::Flush,
            'C' => self.config = PathBuf::from(value),
            'f' | 'r' => self.sender = Some(value.to_owned()),
            'F' => self.full_name = Some(value.to_owned()),
            'o' if value.starts_with('i') => self.dots = LoneDot::Content,
            'N' => self.notify = Some(notify(value)?),
            'R' => {
                self.ret = Some(match value.to_ascii_lowercase().as_str() {
                    "full" => Ret::Full,
                    "hdrs" => Ret::Hdrs,
                    _ => {
                        let value = short(value);
                        return Err(usage(format!("-R {value}: write -R full or -R hdrs")));
                    }
                });
            }
            'V' => self.envid = Some(xtext(value)),
            // -oem, -O, -B, -h, -X, -d and others have no effect here.
            _ => {}
        }
        Ok(())
    }
}

/// Parses the value of `-b`.
fn mode(value: &str) -> Result<SendmailMode, SendmailError> {
    match value {
        "m" => Ok(SendmailMode::Message),
        "s" => Ok(SendmailMode::Smtp),
        "p" => Ok(SendmailMode::List),
        "i" => Ok(SendmailMode::Aliases),
        "d" | "D" => Err(usage(
            "-bd: the daemon is started with `gatepost run` or `systemctl start gatepost`",
        )),
        _ => Err(usage(format!(
            "-b{} is not supported: -bm, -bs, -bp and -bi are",
            short(value)
        ))),
    }
}

/// Parses the value of `-N`.
fn notify(value: &str) -> Result<Notify, SendmailError> {
    if value.eq_ignore_ascii_case("never") {
        return Ok(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for keyword in value.split(',') {
        match keyword.trim().to_ascii_lowercase().as_str() {
            "success" => success = true,
            "failure" => failure = true,
            "delay" => delay = true,
            _ => {
                return Err(usage(format!(
                    "-N {}: write never, or some of success, failure and delay",
                    short(value)
                )));
            }
        }
    }
    Ok(Notify::On {
        success,
        failure,
        delay,
    })
}

/// Encodes a text as xtext (RFC 3461 §4).
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

fn usage(message: impl Into<String>) -> SendmailError {
    SendmailError::new(Sysexit::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str) -> Result<SendmailOptions, SendmailError> {
        let arguments: Vec<_> = arguments.split_whitespace().map(str::to_owned).collect();
        SendmailOptions::parse(SendmailMode::Message, PathBuf::from("default"), &arguments)
    }

    fn good(arguments: &str) -> SendmailOptions {
        parse(arguments).unwrap_or_else(|error| panic!("{arguments}: {error}"))
    }

    #[test]
    fn the_arguments_of_cron_php_and_mailx_are_understood() {
        // cron, PHP's mail(), bsd-mailx, git send-email, mutt.
        let cron = good("-i -FCronDaemon -B8BITMIME -oem root");
        assert_eq!(
            (cron.dots, cron.recipients, cron.full_name),
            (
                LoneDot::Content,
                vec!["root".into()],
                Some("CronDaemon".into())
            )
        );
        let php = good("-t -i");
        assert!(php.from_header && php.dots == LoneDot::Content);
        assert!(good("-ti").from_header && good("-oi -t").from_header);
        let git = good("-f me@a.example -i b@a.example c@a.example");
        assert_eq!(
            (git.sender.as_deref(), git.recipients.len()),
            (Some("me@a.example"), 2)
        );
        let mutt = good("-oem -oi -fme@a.example -N failure,delay -R hdrs -- -odd@a.example");
        assert_eq!(mutt.recipients, ["-odd@a.example"]);
        assert_eq!(
            mutt.notify,
            Some(Notify::On {
                success: false,
                failure: true,
                delay: true
            })
        );
        assert_eq!((mutt.ret, mutt.dots), (Some(Ret::Hdrs), LoneDot::Content));
    }

    #[test]
    fn flags_without_effect_are_ignored_with_their_values() {
        let wanted = good(
            "-v -G -U -n -m -d8.100 -O DeliveryMode=b -oA/etc/aliases -o em -X log -L tag -h 5 -p SMTP b@a.example",
        );
        assert_eq!(wanted.recipients, ["b@a.example"]);
        assert_eq!(
            (wanted.mode, wanted.dots),
            (SendmailMode::Message, LoneDot::End)
        );
        assert_eq!(good("-bs").mode, SendmailMode::Smtp);
        assert_eq!(good("-b p").mode, SendmailMode::List);
        assert_eq!(good("-q30m").mode, SendmailMode::Flush);
        assert_eq!(good("-bi").mode, SendmailMode::Aliases);
        assert_eq!(good("-C other.toml x").config, PathBuf::from("other.toml"));
        assert_eq!(good("-V a+b x").envid.as_deref(), Some("a+2Bb"));
    }

    #[test]
    fn flags_after_recipients_count() {
        let wanted =
            good("b@a.example -t -f me@a.example c@a.example -i --config other.toml -N never");
        assert_eq!(wanted.recipients, ["b@a.example", "c@a.example"]);
        assert!(wanted.from_header && wanted.dots == LoneDot::Content);
        assert_eq!(
            (wanted.sender.as_deref(), wanted.notify),
            (Some("me@a.example"), Some(Notify::Never))
        );
        assert_eq!(wanted.config, PathBuf::from("other.toml"));
        assert_eq!(
            good("b@a.example --config=x.toml -- --config").config,
            PathBuf::from("x.toml")
        );
        assert_eq!(good("b@a.example -bp").mode, SendmailMode::List);
    }

    #[test]
    fn unusable_arguments_are_errors_with_a_remedy() {
        for (arguments, message) in [
            ("-bd", "systemctl start gatepost"),
            ("-bz", "-bz is not supported"),
            ("-f", "-f needs a value"),
            ("-tK b@a.example", "unknown flag -K"),
            ("-N sometimes", "never, or some of success"),
            ("b@a.example --confg x", "unknown flag --confg"),
            ("b@a.example --config", "--config needs a file"),
        ] {
            let error = parse(arguments).expect_err(arguments);
            assert_eq!(error.status, Sysexit::Usage);
            assert!(error.to_string().contains(message), "{arguments}: {error}");
        }
    }
}
