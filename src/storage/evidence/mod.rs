//! Evidence: a record of how each message came in and of each delivery attempt for each recipient,
//! with the TLS that was demanded and the TLS that was used.
//!
//! A record is one line of JSON that contains the hash of the record before it (`chain`); each day
//! has a file of its own (`folder`), which is compressed when the day is over (`compress`). One thread (`writer`) appends the records, many with one sync.
//! A caller goes on only when its records are durable, so the queue never forgets a delivery that
//! is not recorded here. The records have a limit (`usage`), and closed days can
//! move to another folder (`archive`). `verify` checks the chain; `read` and `summary` evaluate the records. They
//! need no daemon.
//!
//! The chain proves that no record between two others was changed, removed, inserted or moved after
//! it was written, unless somebody rewrote all records that follow. It cannot prove that its end
//! was not cut off or that it was not rewritten as a whole. For that, keep the hash of the last
//! record where nobody who can write here can change it. The content of messages is not recorded.

mod archive;
mod chain;
mod compress;
mod days;
mod error;
mod folder;
mod handle;
mod lines;
mod marker;
mod read;
mod record;
mod shared;
mod size_level;
mod source;
mod summary;
mod totals;
mod usage;
mod verify;
mod writer;

pub use archive::{
    ArchiveError, ArchivedDays, copy_closed_days, copy_days_until, is_in_use, newest_day,
    remove_archived_days,
};
pub use chain::{BadLine, ChainHead, LineFault, Link, RecordHash};
pub use error::{EvidenceError, NotWritten};
pub use handle::{Evidence, WaitingRecords};
pub use read::{
    MailRecord, Period, ReadResult, deliveries, first_record, records, records_of_verified_chain,
};
pub use record::{
    AcceptanceRecord, CertificateRecord, DeliveryRecord, DemandOutcome, DemandRecord,
    EvidenceRecord, ExceptionRecord, InboundParties, InboundSession, LoginRecord, PolicyRecord,
    RecordText, RecordedAssurance, RecordedOutcome, SessionRecord, TEXT_MAX, TlsSession,
    UnmetDemand, cut,
};
pub use shared::{EpochSource, EvidenceNode, EvidenceReader, NodeChain};
pub use source::EvidenceSource;
pub use summary::{AcceptedCounts, AssuranceCounts, ClearDeliveries, DeliveryCounts, Summary};
pub use totals::{AssuranceTotals, OutcomeCounts, Totals};
pub use usage::{EvidenceLevel, EvidenceUsage};
pub use verify::{ChainStart, Defect, Finding, Verification, verify};
