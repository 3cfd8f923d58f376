//! `gatepost probe`: the real program against real peers, which record what they heard.

mod all;
mod dane;
mod hostile;
mod memory;
mod shown;
mod verdicts;
mod world;
