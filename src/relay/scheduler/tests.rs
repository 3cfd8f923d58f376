//! Tests of the scheduler with owners that share a store in memory.

mod owners;
mod world;
