//! `gatepost probe` and `gatepost connector add`: the real program against real peers, which record
//! what they heard.

mod all;
mod connector_add;
mod dane;
mod hostile;
mod memory;
mod shown;
mod verdicts;
mod world;
