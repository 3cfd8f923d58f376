//! `/v1/queue/{id}/content`: the content of a message as stored, or a part of it, streamed.

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http_body_util::channel::Channel;
use serde::Deserialize;

use super::filter;
use super::state::{AdminState, ErrorResponse};
use crate::storage::spool::SpoolError;

/// The chunks buffered between the spool and the client.
const CHUNKS: usize = 2;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContentQuery {
    part: Option<MessagePart>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum MessagePart {
    Headers,
    Body,
}

pub(super) async fn content(
    State(admin): State<AdminState>,
    Path(id): Path<String>,
    query: Result<Query<ContentQuery>, QueryRejection>,
) -> Result<Response, ErrorResponse> {
    let Query(ContentQuery { part }) =
        query.map_err(|rejection| ErrorResponse::bad_request(rejection.body_text()))?;
    let id = filter::parse_id(&id)?;
    let mut reader = admin.spool.load(id).await?.body.reader().await?;
    let (mut sender, body) = Channel::<Bytes, SpoolError>::new(CHUNKS);
    // Ends with the message, or when the connection closes and drops the other end.
    tokio::spawn(async move {
        let mut extractor = PartExtractor::new(part);
        while !extractor.is_done() {
            match reader.next().await {
                Ok(Some(chunk)) => {
                    let piece = extractor.cut(chunk);
                    if !piece.is_empty() && sender.send_data(piece).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(queue_id = %id, %error, "cannot read the message to its end");
                    return sender.abort(error);
                }
            }
        }
    });
    Ok((
        [(CONTENT_TYPE, "application/octet-stream")],
        Body::new(body),
    )
        .into_response())
}

/// Extracts a part of a message, chunk by chunk. The parts are separated by the empty line after
/// the header section (RFC 5322 §2.1). The spool stores CRLF line ends only, so a CR at the start
/// of a line begins that empty line.
struct PartExtractor {
    part: Option<MessagePart>,
    place: CutPosition,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CutPosition {
    LineStart,
    InLine,
    /// In the empty line, of which this number of octets is still to come.
    EmptyLine(usize),
    Body,
}

impl PartExtractor {
    fn new(part: Option<MessagePart>) -> Self {
        Self {
            part,
            place: CutPosition::LineStart,
        }
    }

    /// Returns true if no more octets of the part can follow.
    fn is_done(&self) -> bool {
        self.part == Some(MessagePart::Headers)
            && matches!(self.place, CutPosition::EmptyLine(_) | CutPosition::Body)
    }

    /// Returns the octets of a chunk that belong to the part.
    fn cut(&mut self, mut chunk: Bytes) -> Bytes {
        let Some(part) = self.part else { return chunk };
        let headers = chunk.split_to(self.header_length(&chunk));
        if let CutPosition::EmptyLine(remaining) = self.place {
            let skipped = remaining.min(chunk.len());
            drop(chunk.split_to(skipped));
            self.place = if skipped == remaining {
                CutPosition::Body
            } else {
                CutPosition::EmptyLine(remaining - skipped)
            };
        }
        match part {
            MessagePart::Headers => headers,
            MessagePart::Body => chunk,
        }
    }

    /// Returns the number of octets of a chunk that belong to the header section.
    fn header_length(&mut self, chunk: &[u8]) -> usize {
        for (at, octet) in chunk.iter().enumerate() {
            self.place = match (self.place, octet) {
                (CutPosition::EmptyLine(_) | CutPosition::Body, _) => return at,
                (CutPosition::LineStart, b'\r') => CutPosition::EmptyLine(2),
                (CutPosition::LineStart | CutPosition::InLine, b'\n') => CutPosition::LineStart,
                (CutPosition::LineStart | CutPosition::InLine, _) => CutPosition::InLine,
            };
            if self.place == CutPosition::EmptyLine(2) {
                return at;
            }
        }
        if matches!(self.place, CutPosition::EmptyLine(_) | CutPosition::Body) {
            0
        } else {
            chunk.len()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Extracts a part of a message that comes in chunks of `size` octets.
    fn cut(message: &str, part: Option<MessagePart>, size: usize) -> String {
        let mut extractor = PartExtractor::new(part);
        let mut extracted = Vec::new();
        for chunk in message.as_bytes().chunks(size) {
            if extractor.is_done() {
                break;
            }
            extracted.extend_from_slice(&extractor.cut(Bytes::copy_from_slice(chunk)));
        }
        String::from_utf8(extracted).expect("text")
    }

    #[test]
    fn the_empty_line_is_found_wherever_chunks_end() {
        for (headers, body) in [
            ("A: 1\r\nB: 2\r\n c\r\n", "body\r\n\r\nmore\r\n"),
            ("A: 1\r\n", ""),
            ("", "body\r\n"),
            ("", "\r\n\r\n"),
        ] {
            let message = format!("{headers}\r\n{body}");
            for size in 1..=message.len() {
                assert_eq!(
                    cut(&message, Some(MessagePart::Headers), size),
                    headers,
                    "{message:?} by {size}"
                );
                assert_eq!(
                    cut(&message, Some(MessagePart::Body), size),
                    body,
                    "{message:?} by {size}"
                );
                assert_eq!(cut(&message, None, size), message);
            }
        }
        assert_eq!(
            cut("A: 1\r\n", Some(MessagePart::Headers), 3),
            "A: 1\r\n",
            "without an empty line"
        );
        assert_eq!(cut("A: 1\r\n", Some(MessagePart::Body), 3), "");
    }
}
