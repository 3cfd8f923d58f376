//! Access tokens: a token server on this machine that checks and scripts each request, and the
//! sources that ask it.

mod assertions;
mod hostile;
mod requests;
mod rotation;
mod server;
mod settings;
mod sharing;
mod world;

pub(crate) use server::{Conduct, TokenServer, json, token};
pub(crate) use world::write_private;
