//! The entry point of the `gatepost` program.

use std::process::ExitCode;

/// A session makes a few hundred small allocations, most of them in TLS. For these mimalloc is
/// faster than the allocator of the C library.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gatepost::cli::main(std::env::args_os())
}
