//! The evidence: a chain that nobody can change unnoticed, written before the queue forgets.

mod accepted;
mod audit;
mod chain;
mod daemon;
mod folder;
mod refused;
mod stuck;
mod world;
