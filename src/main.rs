//! Arguments and exit status, and the allocator of the whole program.

use std::process::ExitCode;

use clap::Parser as _;

/// A relay that shakes hands allocates much and keeps little of it, on all its threads. jemalloc does that with a
/// tenth less processor time for each message than glibc's (`cargo bench --bench path`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    gatepost::cli::Cli::parse().run()
}
