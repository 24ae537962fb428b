-- Monthly partitions of bars and quotes. Names of tables are filled in by the caller, from a closed set.

-- name: existing
-- The partitions a table has now, by name.
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = CAST(:parent AS regclass)

-- name: lock
-- One maker of partitions at a time, per table.
SELECT pg_advisory_xact_lock(hashtext('mdtasks.partitions'), hashtext(:parent))
