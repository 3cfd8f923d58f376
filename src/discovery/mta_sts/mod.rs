//! MTA-STS
mod failure;
mod policy;
mod record;
mod web;
pub use failure::{Absent, Failure, FailureKind};
pub use policy::{Listing, Mode, Policy, PolicyFault, evaluate};
pub use record::{PolicyId, RecordFault};
pub use web::Web;
