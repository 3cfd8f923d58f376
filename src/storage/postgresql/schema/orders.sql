
-- The orders of operators for messages of another node: that looks for them every second. An order is
-- for one run of the node, and is void 30 s after it was given if the node has not begun it.
CREATE TABLE gatepost.node_order (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node         smallint NOT NULL,
    epoch        bigint NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    content      text NOT NULL,                   -- JSON
    begun        boolean NOT NULL DEFAULT false,
    result       text                             -- JSON
);
