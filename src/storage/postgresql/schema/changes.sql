
-- The number of the last change of each store whose rows all nodes keep in memory. Who changes a store
-- advances its number first, in the same transaction, and writes the number into the rows. The lock of
-- the row here lasts until the commit, so changes become visible in the order of their numbers, which
-- those of a sequence do not: a node that has seen the number 7 has seen all changes up to 7.
CREATE TABLE gatepost.change (
    store  text PRIMARY KEY,
    number bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);
