
-- The evidence: a chain of records for each node, with the head of each. A node extends its own chain
-- alone, and only from the head that it knows, so of two processes with one name, one is refused.
CREATE TABLE gatepost.evidence_chain (
    id            integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node          text NOT NULL UNIQUE,           -- the name; a node that is removed leaves its chain
    day           date NOT NULL DEFAULT '2020-01-01', -- of the last record; it never goes back
    last_seq      bigint NOT NULL DEFAULT 0,
    last_hash     text NOT NULL DEFAULT repeat('0', 64),
    removed_seq   bigint NOT NULL DEFAULT 0,      -- the last record that was removed for its age
    removed_hash  text NOT NULL DEFAULT repeat('0', 64),
    removed_days  integer NOT NULL DEFAULT 0,     -- the number of removed days that no record names
    recorded_seq  bigint NOT NULL DEFAULT 0       -- the last removed record that a later record names
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

-- The records, as lines of the form that files have.
CREATE TABLE gatepost.evidence (
    chain integer NOT NULL,
    day   date NOT NULL,                          -- in UTC, by the clock of the database
    seq   bigint NOT NULL,
    line  text NOT NULL,                          -- JSON, with the hash of the record before
    PRIMARY KEY (chain, day, seq)
) PARTITION BY RANGE (day);
CREATE TABLE gatepost.evidence_other PARTITION OF gatepost.evidence DEFAULT;

-- Ends a statement that would append records of changes that it has not made.
CREATE FUNCTION gatepost.require_changes(are_made boolean) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT are_made THEN
        RAISE EXCEPTION 'evidence of a message that this node does not own' USING ERRCODE = 'GP001';
    END IF;
    RETURN true;
END
$$;

-- Makes the partitions of today to the day after tomorrow, and drops those of days that are older than
-- `keep`, oldest first, after each chain says which of its records go. It runs with the rights of the
-- owner, so the role of the relays needs no right to create or drop tables.
CREATE FUNCTION gatepost.keep_evidence(keep interval) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    today constant date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
    oldest constant date := (clock_timestamp() AT TIME ZONE 'UTC' - keep)::date;
    old record;
BEGIN
    FOR ahead IN 0 .. 2 LOOP
        CONTINUE WHEN to_regclass('gatepost.evidence_' || to_char(today + ahead, 'YYYYMMDD')) IS NOT NULL;
        BEGIN
            EXECUTE format(
                'CREATE TABLE gatepost.%I PARTITION OF gatepost.evidence FOR VALUES FROM (%L) TO (%L)',
                'evidence_' || to_char(today + ahead, 'YYYYMMDD'), today + ahead, today + ahead + 1);
        EXCEPTION
            -- Another node makes it, or records are in the way: the next call tries again. Records of
            -- that day are in the partition for others meanwhile.
            WHEN duplicate_table OR lock_not_available OR check_violation OR deadlock_detected THEN NULL;
        END;
    END LOOP;
    FOR old IN
        SELECT class.relname AS name
        FROM pg_inherits JOIN pg_class class ON class.oid = inhrelid
        WHERE inhparent = 'gatepost.evidence'::regclass AND class.relname ~ '^evidence_[0-9]{8}$'
          AND to_date(right(class.relname, 8), 'YYYYMMDD') < oldest
        ORDER BY class.relname
    LOOP
        BEGIN
            EXECUTE 'LOCK TABLE gatepost.evidence IN ACCESS EXCLUSIVE MODE';
            EXECUTE format(
                'UPDATE gatepost.evidence_chain AS known SET removed_seq = gone.seq, '
                'removed_hash = substring(gone.line FROM ''"hash":"([0-9a-f]{64})"}$''), '
                'removed_days = removed_days + 1 '
                'FROM (SELECT DISTINCT ON (chain) chain, seq, line FROM gatepost.%I ORDER BY chain, seq DESC) AS gone '
                'WHERE known.id = gone.chain AND gone.seq > known.removed_seq', old.name);
            EXECUTE format('DROP TABLE gatepost.%I', old.name);
        EXCEPTION
            WHEN lock_not_available OR undefined_table OR deadlock_detected THEN EXIT;
        END;
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION gatepost.keep_evidence(interval) FROM PUBLIC;
