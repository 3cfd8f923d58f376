//! The end of the engine after a failure of the disk.

/// The disk failed, which has been logged; the threads of the engine must end.
#[derive(Debug)]
pub(super) struct Fatal;
