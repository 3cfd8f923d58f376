CREATE TABLE message (
    -- Look, but do not edit: a row whose checksums do not fit is set aside. Use gatepost queue.
    id INTEGER PRIMARY KEY,         -- (milliseconds since 2020-01-01) * 4194304 + a counter
    accepted INTEGER NOT NULL,      -- milliseconds since 1970-01-01
    size INTEGER NOT NULL,          -- octets of the content
    content TEXT NOT NULL,          -- row: in table body; file: in bodies/<name>, name as in view queue
    content_crc INTEGER NOT NULL,   -- CRC-32 of the content
    fixed_crc INTEGER NOT NULL,     -- CRC-32 of id, accepted, size, content_crc, each little-endian
    envelope TEXT NOT NULL,         -- JSON, with each recipient's state
    envelope_crc INTEGER NOT NULL   -- CRC-32 of id, length, envelope
);
CREATE TABLE body (
    id INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);
CREATE VIEW queue AS SELECT
    substr('0123456789abcdefghjkmnpqrstvwxyz', ((id >> 60) & 31) + 1, 1) || substr('0123456789abcdefghjkmnpqrstvwxyz', ((id >> 55) & 31) + 1, 1) || substr('0123456789abcdefghjkmnpqrstvwxyz', ((id >> 50) & 31) + 1, 1) || substr('0123456789abcdefghjkmnpqrstvwxyz', ((id >> 45) & 31) + 1, 1) || substr('0123456789abcdefghjkmnpqrstvwxyz', ((id >> 40) & 31) + 1, 1) || substr('0123456789abcdefghjkmnpqrstvwxyz', ((id >> 35) & 31) + 1, 1) || substr('0123456789abcdefghjkmnpqrstvwxyz', ((id >> 30) & 31) + 1, 1) || substr('0123456789abcdefghjkmnpqrstvwxyz', ((id >> 25) & 31) + 1, 1) || substr('0123456789abcdefghjkmnpqrstvwxyz', ((id >> 20) & 31) + 1, 1) || substr('0123456789abcdefghjkmnpqrstvwxyz', ((id >> 15) & 31) + 1, 1) || substr('0123456789abcdefghjkmnpqrstvwxyz', ((id >> 10) & 31) + 1, 1) || substr('0123456789abcdefghjkmnpqrstvwxyz', ((id >> 5) & 31) + 1, 1) || substr('0123456789abcdefghjkmnpqrstvwxyz', ((id >> 0) & 31) + 1, 1) AS name,
    strftime('%Y-%m-%dT%H:%M:%fZ', accepted / 1000.0, 'unixepoch') AS accepted,
    size,
    content,
    json_extract(envelope, '$.reverse_path') AS sender,
    (SELECT group_concat(json_extract(value, '$.mailbox'), ' ') FROM json_each(envelope, '$.recipients')) AS recipients,
    envelope,
    id
FROM message ORDER BY id;
