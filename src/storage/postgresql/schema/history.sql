
-- The downgrade memory. Times are seconds since 1970.
CREATE TABLE gatepost.history_host (
    domain         text NOT NULL,                 -- the recipient domain
    host           text NOT NULL,                 -- one of the hosts that take its mail
    change         bigint NOT NULL,               -- the number of the last change of this row
    seen           bigint NOT NULL,               -- when it was last reached
    level          text NOT NULL,                 -- plain, tls, trusted, verified or dane: what it showed then
    issuer         text,                          -- of its last certificate
    issuer_since   bigint,
    plain_first    bigint, plain_last    bigint,  -- from when to when it showed each level
    tls_first      bigint, tls_last      bigint,
    trusted_first  bigint, trusted_last  bigint,
    verified_first bigint, verified_last bigint,
    dane_first     bigint, dane_last     bigint,
    PRIMARY KEY (domain, host)
);
CREATE INDEX history_host_change ON gatepost.history_host (change);

-- The domains that operators have had forgotten.
CREATE TABLE gatepost.history_forgotten (
    domain text NOT NULL,
    at     bigint NOT NULL,
    hosts  bigint NOT NULL,
    reason text NOT NULL,
    who    text NOT NULL,
    change bigint NOT NULL,
    PRIMARY KEY (domain, at)
);
INSERT INTO gatepost.change (store) VALUES ('history');
