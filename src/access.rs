//! May this peer hand us this recipient?
