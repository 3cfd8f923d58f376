//! The evidence: a chain that nobody can change unnoticed, written before the queue forgets.

mod accepted;
mod archive;
mod archive_today;
mod audit;
mod chain;
mod compressed;
mod daemon;
mod damaged;
mod folder;
mod limit;
mod refused;
mod scripted;
mod shared;
mod stuck;
mod world;
