//! Arguments and exit status; and which allocator the program has.

use std::process::ExitCode;

/// A session is a few hundred small allocations, most of them of TLS: this one is quicker at them than the
/// C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gatepost::cli::main(std::env::args_os())
}
