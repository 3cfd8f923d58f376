//! The results of a transaction.

use crate::smtp::reply::Reply;

use super::DialogueStage;

/// The next thing that the driver of the dialogue must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStep {
    /// Send the content, dot-stuffed, with the final dot. Then call [`super::Transaction::content_sent`].
    Content,
    /// The peer has accepted a recipient, and the content was sent as a chunk: only the reply to that
    /// is awaited. Call [`super::Transaction::receive`] again.
    ChunkReply,
    /// The transaction has ended. Call [`super::Transaction::into_results`].
    Over,
}

/// The status of one recipient before the content is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientStatus {
    /// RCPT was not answered yet.
    Pending,
    /// RCPT was accepted. The result depends on the [`TransactionEnd`].
    Accepted,
    /// RCPT was rejected with this reply.
    Rejected(Reply),
    /// The message was delivered to the recipient, with this reply of LMTP.
    Delivered(Reply),
    /// The content was rejected for the recipient, with this reply of LMTP.
    Undelivered(Reply),
    /// The recipient is too many for one transaction (RFC 5321 §4.5.3.1.10) and goes into a further
    /// one.
    Overflow,
}

/// The end of a transaction, for the recipients that were not rejected one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionEnd {
    /// The connection broke before the end.
    Unfinished,
    /// The message was accepted with this reply.
    Accepted(Reply),
    /// The message was rejected.
    Rejected {
        /// The stage at which it was.
        stage: DialogueStage,
        /// The reply.
        reply: Reply,
    },
    /// The peer closes the connection (421).
    Closing {
        /// The stage at which it does.
        stage: DialogueStage,
        /// The reply.
        reply: Reply,
    },
    /// Each recipient that was accepted has a reply of its own (LMTP).
    EachAnswered,
    /// No recipient was accepted.
    NoRecipient,
}

/// The results of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionResults {
    /// The status of each recipient, in the order of [`super::Mail::recipients`].
    pub recipients: Vec<RecipientStatus>,
    /// The result of the recipients that were not rejected one by one.
    pub ending: TransactionEnd,
    /// True if the session is as it was before MAIL, so that another transaction can follow.
    pub reusable: bool,
    /// True if the replies show by their enhanced statuses whether they are about an address or about
    /// the message, so that one cannot be mistaken for another.
    pub has_distinct_replies: bool,
    /// The index in [`super::Mail::recipients`] of the recipient whose reply ended the session, or was
    /// awaited when the connection broke.
    pub last_named: Option<usize>,
}
