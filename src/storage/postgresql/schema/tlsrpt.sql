
-- The sessions that are counted for TLS reports, of all nodes. Who counts or plans advances the number of
-- the store first, so there is one writer at a time and no day has more rows than its limits.
CREATE TABLE gatepost.tlsrpt_domain (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    day          text COLLATE "C" NOT NULL,       -- UTC, YYYY-MM-DD
    name         text COLLATE "C" NOT NULL,
    report       text,                            -- the id of its report, once it is planned
    due          bigint,                          -- when it is tried next; seconds since 1970
    first        bigint,                          -- when it was tried first
    attempts     bigint NOT NULL DEFAULT 0,
    done         text NOT NULL DEFAULT '[]',      -- destinations that have it
    closed       text,                            -- why nothing more is done; its counts are gone then
    sender       bigint,                          -- the run of the node that sends it
    sender_until timestamptz,                     -- until when others leave it to that node
    UNIQUE (day, name)
);
CREATE INDEX tlsrpt_domain_due ON gatepost.tlsrpt_domain (due) WHERE due IS NOT NULL;
CREATE TABLE gatepost.tlsrpt_policy (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    domain        bigint NOT NULL REFERENCES gatepost.tlsrpt_domain (id) ON DELETE CASCADE,
    key           bytea NOT NULL,                 -- SHA-256 of what follows
    policy_domain text NOT NULL,
    type          text NOT NULL,
    strings       text NOT NULL,                  -- JSON list
    mx            text NOT NULL,                  -- JSON list
    succeeded     bigint NOT NULL DEFAULT 0,
    failed        bigint NOT NULL DEFAULT 0,
    UNIQUE (domain, key)
);
CREATE TABLE gatepost.tlsrpt_failure (
    policy   bigint NOT NULL REFERENCES gatepost.tlsrpt_policy (id) ON DELETE CASCADE,
    key      bytea NOT NULL,                      -- SHA-256 of the failure
    failure  text NOT NULL,                       -- JSON list of its seven texts
    sessions bigint NOT NULL,
    PRIMARY KEY (policy, key)
);
INSERT INTO gatepost.change (store) VALUES ('tlsrpt');
