
-- The cached MTA-STS policies. All times are by the clock of the database: nodes give ages.
CREATE TABLE gatepost.mta_sts_policy (
    domain       text PRIMARY KEY,                -- A-labels
    id           text NOT NULL,                   -- of the TXT record, when the policy was fetched
    terms        text NOT NULL,                   -- the policy's lines that mean something
    fetched      timestamptz NOT NULL,
    used         timestamptz NOT NULL,            -- when mail was last sent under it
    refresh_until timestamptz,                    -- until when others leave its refresh to one node
    change       bigint NOT NULL                  -- the number of the last change of this row
);
CREATE INDEX mta_sts_policy_change ON gatepost.mta_sts_policy (change);
INSERT INTO gatepost.change (store) VALUES ('mta_sts');
