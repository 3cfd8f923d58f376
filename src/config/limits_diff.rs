//! The `[limits]` and `[timeouts]` tables as keys and values.

use super::setting::SettingValue;
use super::settings::{Limits, Timeouts};

/// Returns the keys of `[limits]`, all of them, with their values.
pub(super) fn limit_settings(limits: &Limits) -> Vec<(&'static str, SettingValue)> {
    let clients = &limits.clients;
    vec![
        ("message_size", limits.message_size.into()),
        ("recipients", limits.recipients.into()),
        ("connections", clients.connections.into()),
        (
            "connections_per_client",
            clients.connections_per_client.into(),
        ),
        (
            "connections_per_network",
            clients.connections_per_network.into(),
        ),
        ("connections_reserved", clients.connections_reserved.into()),
        (
            "connections_per_minute",
            clients.connections_per_minute.into(),
        ),
        ("messages_per_minute", clients.messages_per_minute.into()),
        (
            "recipients_per_minute",
            clients.recipients_per_minute.into(),
        ),
        (
            "handshakes_per_minute",
            clients.handshakes_per_minute.into(),
        ),
        (
            "unknown_recipients_per_minute",
            clients.unknown_recipients_per_minute.into(),
        ),
        (
            "unchecked_recipients_per_minute",
            clients.unchecked_recipients_per_minute.into(),
        ),
        ("transaction_memory", limits.transaction_memory.all.into()),
        (
            "transaction_memory_per_session",
            limits.transaction_memory.per_session.into(),
        ),
        ("errors", limits.errors.into()),
        ("received", limits.received.into()),
        ("delivery_attempts", limits.delivery_attempts.into()),
        (
            "delivery_attempt_time",
            SettingValue::duration(limits.delivery_attempt_time),
        ),
        ("dsn_per_minute", limits.dsn_per_minute.into()),
        (
            "dsn_per_minute_per_domain",
            limits.dsn_per_minute_per_domain.into(),
        ),
    ]
}

/// Returns the keys of `[timeouts]`, all of them, with their values.
pub(super) fn timeout_settings(timeouts: &Timeouts) -> Vec<(&'static str, SettingValue)> {
    let time = SettingValue::duration;
    vec![
        ("command", time(timeouts.command)),
        ("data_block", time(timeouts.data_block)),
        ("data_rate", timeouts.data_rate.into()),
        ("message", time(timeouts.message)),
        ("handshake", time(timeouts.handshake)),
        ("connect", time(timeouts.connect)),
        ("reply", time(timeouts.reply)),
        ("final_reply", time(timeouts.final_reply)),
        ("drain", time(timeouts.drain)),
    ]
}
