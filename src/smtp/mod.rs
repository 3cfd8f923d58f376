//! SMTP (RFC 5321): commands, replies, the framing of messages, and the dialogues of server and
//! client as state machines. They take bytes and return steps. Nothing here uses a socket, a clock
//! or a disk.

pub mod address;
pub mod client;
pub mod command;
pub mod data;
pub mod dsn;
pub mod envelope;
pub mod reply;
pub mod sasl;
pub mod server;
