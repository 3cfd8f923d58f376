//! The orders of events in which a small disk is filled and worked off.

use EvidencePlace::{Beside, MaxSize};
use ForeignFile::{AfterDelivery, BeforeDeferral, BeforeDelivery, WhileDelivering};
use Interruption::{Kill, Restart};
use Mail::Mixed;
use NextHop::{Defers, Rejects};
use OtherProgram::{LocksCheckpoints, Reads};

/// The mail that fills the disk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mail {
    /// Messages of so many octets.
    Of(usize),
    /// One message to 1,000 recipients, and then messages of so many octets.
    ManyRecipients(usize),
    /// Small messages, messages in rows, and messages with files.
    Mixed,
}

/// The next hop, until it accepts mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextHop {
    Closed,
    /// It replies 451 to each recipient.
    Defers,
    /// It is closed, and then replies 550 to each other recipient, whose sender gets a report.
    Rejects,
}

/// The place of the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EvidencePlace {
    /// On a disk with room.
    Apart,
    /// On the disk that is full.
    Beside,
    /// Apart, and `[evidence] max_size` is reached while the queue is worked off.
    MaxSize,
}

/// Another program that uses the database.
#[derive(Debug, Clone, Copy)]
pub(super) enum OtherProgram {
    Reads,
    LocksCheckpoints,
}

/// The time at which a foreign file uses up the disk to the last octet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ForeignFile {
    /// The next hop defers mail for long after that.
    BeforeDeferral,
    BeforeDelivery,
    /// It grows by all that the relay frees, until most mail is delivered.
    WhileDelivering,
    /// The relay has nothing to do by then.
    AfterDelivery,
}

/// The end of the relay in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interruption {
    Restart,
    Kill,
}

/// An order of events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    /// The size of the disk in MiB.
    pub(super) disk: u64,
    pub(super) mail: Mail,
    pub(super) next_hop: NextHop,
    pub(super) evidence: EvidencePlace,
    pub(super) other: Option<OtherProgram>,
    pub(super) foreign: Option<ForeignFile>,
    pub(super) interruption: Option<Interruption>,
    /// A tenth of the mail goes to a destination that stays down.
    pub(super) tenth_stays: bool,
}

/// Messages that stay in their rows.
const ROWS: Mail = Mail::Of(20_000);
const SMALL: Mail = Mail::Of(3_000);
/// Messages with files.
const FILES: Mail = Mail::Of(300_000);
const MANY: Mail = Mail::ManyRecipients(20_000);

/// The orders. Each thing that can happen is in several of them, beside different others.
pub(super) const ORDERS: &[Order] = &[
    order(16, SMALL),
    order(16, SMALL).next_hop(Defers).foreign(BeforeDeferral),
    order(16, SMALL).foreign(WhileDelivering).interruption(Kill),
    order(64, FILES).foreign(BeforeDelivery),
    order(32, MANY).foreign(BeforeDelivery),
    order(24, MANY).next_hop(Defers).interruption(Kill),
    order(32, ROWS).other(Reads).foreign(BeforeDelivery),
    order(64, Mixed)
        .other(LocksCheckpoints)
        .foreign(WhileDelivering),
    order(64, ROWS).foreign(WhileDelivering).tenth_stays(),
    order(64, ROWS).foreign(AfterDelivery),
    order(24, ROWS).next_hop(Defers).foreign(BeforeDelivery),
    order(24, ROWS).next_hop(Defers).foreign(BeforeDeferral),
    order(24, Mixed).next_hop(Defers).other(Reads),
    order(24, ROWS)
        .next_hop(Defers)
        .evidence(Beside)
        .foreign(BeforeDelivery),
    order(24, ROWS).next_hop(Rejects),
    order(24, ROWS).next_hop(Rejects).foreign(BeforeDelivery),
    order(24, ROWS)
        .next_hop(Rejects)
        .other(Reads)
        .foreign(AfterDelivery),
    order(24, ROWS)
        .next_hop(Rejects)
        .evidence(Beside)
        .interruption(Kill),
    order(32, ROWS).evidence(Beside).foreign(BeforeDelivery),
    order(64, Mixed).evidence(Beside).other(Reads).tenth_stays(),
    order(32, Mail::Of(100_000)).evidence(MaxSize),
    order(32, ROWS)
        .evidence(MaxSize)
        .other(LocksCheckpoints)
        .foreign(BeforeDelivery),
    order(32, ROWS)
        .foreign(BeforeDelivery)
        .interruption(Restart),
    order(64, Mixed)
        .evidence(Beside)
        .other(Reads)
        .interruption(Kill),
    order(32, ROWS)
        .evidence(Beside)
        .interruption(Restart)
        .tenth_stays(),
];

/// Mail of this kind fills a disk of so many MiB, and is delivered.
const fn order(disk: u64, mail: Mail) -> Order {
    Order {
        disk,
        mail,
        next_hop: NextHop::Closed,
        evidence: EvidencePlace::Apart,
        other: None,
        foreign: None,
        interruption: None,
        tenth_stays: false,
    }
}

impl Order {
    const fn next_hop(self, next_hop: NextHop) -> Self {
        Self { next_hop, ..self }
    }

    const fn evidence(self, evidence: EvidencePlace) -> Self {
        Self { evidence, ..self }
    }

    const fn other(self, other: OtherProgram) -> Self {
        Self {
            other: Some(other),
            ..self
        }
    }

    const fn foreign(self, foreign: ForeignFile) -> Self {
        Self {
            foreign: Some(foreign),
            ..self
        }
    }

    const fn interruption(self, interruption: Interruption) -> Self {
        Self {
            interruption: Some(interruption),
            ..self
        }
    }

    const fn tenth_stays(self) -> Self {
        Self {
            tenth_stays: true,
            ..self
        }
    }
}
