//! SMTP itself (RFC 5321): commands, replies, message framing, and the two dialogues as state
//! machines. Bytes and time go in, steps come out; nothing here touches a socket, a clock or a disk.

pub mod client;
pub mod command;
pub mod data;
pub mod reply;
pub mod server;
