//! The input of a password: on the terminal, without an echo and twice; otherwise the first line of
//! standard input.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::user_file::UserFileError;
use crate::smtp::sasl::Password;

/// The least characters of a password that people choose.
const LEAST: usize = 8;

/// Reads a new password.
pub(super) fn read_password() -> Result<Password, UserFileError> {
    let text = if io::stdin().is_terminal() {
        let first = prompt("Password: ")?;
        if *first != *prompt("The same again: ")? {
            return Err(UserFileError::NotTheSame);
        }
        first
    } else {
        read_line()?
    };
    if text.chars().count() < LEAST {
        return Err(UserFileError::TooShort(LEAST));
    }
    Ok(Password::new(&text)?)
}

/// The terminal without an echo; dropped, it echoes again.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // The terminal may have gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

fn prompt(text: &str) -> io::Result<Zeroizing<String>> {
    let _silence = Silence::begin()?;
    let mut stderr = io::stderr();
    stderr.write_all(text.as_bytes())?;
    stderr.flush()?;
    read_line()
}

/// Reads a line without its end.
fn read_line() -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    io::stdin().lock().read_line(&mut line)?;
    let text = line.strip_suffix('\n').unwrap_or(&line);
    Ok(Zeroizing::new(
        text.strip_suffix('\r').unwrap_or(text).to_owned(),
    ))
}
