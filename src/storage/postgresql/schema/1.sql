-- The schema of a database that several relays share. All of it is in the schema "gatepost", and every
-- statement names that, so no search_path is of any importance.

CREATE SCHEMA IF NOT EXISTS gatepost;

-- The version of the schema, and the oldest version that a program must know to use it. So a release
-- can be rolled in node by node: the first new node migrates, and the old ones go on while they can.
CREATE TABLE gatepost.schema_version (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version    integer NOT NULL,
    compatible integer NOT NULL
);

-- One number for each run of each node. A number is never used again.
CREATE SEQUENCE gatepost.epoch AS bigint;

-- The nodes. A node is alive while its lease has not ended, by the clock of the database.
CREATE TABLE gatepost.node (
    number    smallint PRIMARY KEY CHECK (number BETWEEN 1 AND 63),
    name      text NOT NULL UNIQUE,
    token     bytea NOT NULL,                     -- SHA-256 of the secret in the node's own folder
    epoch     bigint NOT NULL,
    lease     interval NOT NULL,
    lease_end timestamptz NOT NULL,
    fenced    boolean NOT NULL DEFAULT false,     -- others may claim its messages; its epoch is over
    draining  boolean NOT NULL DEFAULT false,     -- it hands what waits to the others
    joined    timestamptz NOT NULL,
    last_id   bigint NOT NULL DEFAULT 0,          -- the last queue id that it drew, at the last renewal
    divisor   integer NOT NULL DEFAULT 1,         -- the number of nodes by which it divides limits now
    config    text NOT NULL DEFAULT ''            -- JSON: what others compare before they adopt
);

-- The messages. The id has the time of acceptance in its upper bits, so a partition is a day.
CREATE TABLE gatepost.message (
    id       bigint NOT NULL,
    node     smallint NOT NULL,                   -- the owner, or the last one
    epoch    bigint NOT NULL,                     -- the run of the owner that it was given to; 0: given back
    accepted bigint NOT NULL,                     -- milliseconds since 1970
    size     bigint NOT NULL,
    crc      bigint NOT NULL,                     -- CRC-32 of the content
    envelope text NOT NULL,                       -- JSON
    body     bytea,                               -- NULL: in gatepost.body
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
-- Content is not worth compressing twice, and parts of it are never read alone.
ALTER TABLE gatepost.message ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX message_of_node ON gatepost.message (node, id);
CREATE INDEX message_given_back ON gatepost.message (id) WHERE epoch = 0;

-- The parts of envelopes with many recipients that have changed since they were stored.
CREATE TABLE gatepost.recipient (
    message bigint NOT NULL,
    part    integer NOT NULL,                     -- the place of the recipient; -1: all but the recipients
    status  text NOT NULL,                        -- JSON
    PRIMARY KEY (message, part)
) PARTITION BY RANGE (message);

-- Large content, in pieces of 256 KiB.
CREATE TABLE gatepost.body (
    message bigint NOT NULL,
    piece   integer NOT NULL,
    octets  bytea NOT NULL,
    PRIMARY KEY (message, piece)
) PARTITION BY RANGE (message);
ALTER TABLE gatepost.body ALTER COLUMN octets SET STORAGE EXTERNAL;

-- Messages that are damaged, as they were found. An administrator looks at them and deletes them.
CREATE TABLE gatepost.set_aside (
    id       bigint PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    fault    text NOT NULL,
    node     smallint NOT NULL,
    accepted bigint NOT NULL,
    size     bigint NOT NULL,
    crc      bigint NOT NULL,
    envelope text NOT NULL,
    body     bytea,
    is_lost  boolean NOT NULL,                    -- it has left the queue, and its sender cannot be informed
    report   bigint                               -- the message that informs the postmaster of it
);
CREATE TABLE gatepost.set_aside_body (
    message bigint NOT NULL,
    piece   integer NOT NULL,
    octets  bytea NOT NULL,
    PRIMARY KEY (message, piece)
);

-- Rows outside of the days that have partitions: a queue that was moved here, or a clock far off.
CREATE TABLE gatepost.message_other PARTITION OF gatepost.message DEFAULT;
CREATE TABLE gatepost.recipient_other PARTITION OF gatepost.recipient DEFAULT;
CREATE TABLE gatepost.body_other PARTITION OF gatepost.body DEFAULT;

-- Makes the partitions of yesterday to the day after tomorrow, and drops those of earlier days that
-- are empty. It runs with the rights of the owner, so the role of the relays needs no right to create
-- tables. Rows come and go within minutes, so each partition is vacuumed after a fixed number of dead
-- rows and not after a share of a table that may have been large an hour ago; and without a pause,
-- since dead rows cost every reader of the queue.
CREATE FUNCTION gatepost.keep_partitions() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    -- 2020-01-01 is the first millisecond of an id, whose lower 22 bits are no time.
    today constant bigint := floor(extract(epoch FROM clock_timestamp() - timestamptz '2020-01-01 00:00:00Z') / 86400);
    width constant bigint := 86400000::bigint << 22;
    parent text;
    old record;
    is_empty boolean;
BEGIN
    FOREACH parent IN ARRAY ARRAY['message', 'recipient', 'body'] LOOP
        FOR day IN today - 1 .. today + 2 LOOP
            CONTINUE WHEN to_regclass(format('gatepost.%I', parent || '_' || day)) IS NOT NULL;
            BEGIN
                EXECUTE format(
                    'CREATE TABLE gatepost.%I PARTITION OF gatepost.%I FOR VALUES FROM (%s) TO (%s) WITH ('
                    'autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0, '
                    'autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_analyze_threshold = 20000, '
                    'autovacuum_analyze_scale_factor = 0, autovacuum_vacuum_cost_delay = 0)',
                    parent || '_' || day, parent, day * width, (day + 1) * width);
            EXCEPTION
                -- Another node makes it, or mail is in the way: the next call tries again. Rows of
                -- that day are in the partition for others meanwhile.
                WHEN duplicate_table OR lock_not_available OR check_violation OR deadlock_detected THEN NULL;
            END;
        END LOOP;
        FOR old IN
            SELECT class.relname AS name
            FROM pg_inherits JOIN pg_class class ON class.oid = inhrelid
            WHERE inhparent = format('gatepost.%I', parent)::regclass
              AND class.relname ~ ('^' || parent || '_[0-9]+$')
              AND substring(class.relname FROM '[0-9]+$')::bigint < today - 1
        LOOP
            -- Not locked to be looked at: the lock would stay until the end of this call.
            EXECUTE format('SELECT NOT EXISTS (SELECT FROM gatepost.%I)', old.name) INTO is_empty;
            CONTINUE WHEN NOT is_empty;
            BEGIN
                EXECUTE format('LOCK TABLE gatepost.%I IN ACCESS EXCLUSIVE MODE', parent);
                EXECUTE format('SELECT NOT EXISTS (SELECT FROM gatepost.%I)', old.name) INTO is_empty;
                IF is_empty THEN
                    EXECUTE format('DROP TABLE gatepost.%I', old.name);
                END IF;
            EXCEPTION
                WHEN lock_not_available OR undefined_table OR deadlock_detected THEN NULL;
            END;
        END LOOP;
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION gatepost.keep_partitions() FROM PUBLIC;

-- Removes content whose message never came: its node died between the two. A week is more than a clock
-- is wrong.
CREATE FUNCTION gatepost.remove_orphans() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM gatepost.body
    USING (SELECT floor(extract(epoch FROM clock_timestamp() - timestamptz '2020-01-08 00:00:00Z') * 1000)::bigint << 22 AS id) AS before
    WHERE message < before.id
      AND NOT EXISTS (SELECT FROM gatepost.message m WHERE m.id = body.message AND m.id < before.id)
$$;
REVOKE ALL ON FUNCTION gatepost.remove_orphans() FROM PUBLIC;
