-- What is too old: marks of how far it was deleted, and each deletion as one short statement of at most :most rows.
-- {partition}: the name of a partition, filled in by the caller from those that there are.

-- name: begin
-- From now on what is older than :before may be gone. Written before the first row goes.
INSERT INTO retention_marks AS m (subject, lost_before, policy_version) VALUES (:subject, :before, :policy_version)
ON CONFLICT (subject) DO UPDATE
SET lost_before = greatest(m.lost_before, excluded.lost_before), policy_version = excluded.policy_version,
    updated_at = clock_timestamp()

-- name: done
-- A round came to its end: nothing older is left.
UPDATE retention_marks SET done_before = :before, updated_at = clock_timestamp() WHERE subject = :subject

-- name: marks
SELECT subject, lost_before, done_before, reached, policy_version, updated_at FROM retention_marks ORDER BY subject

-- name: lost_before
SELECT lost_before FROM retention_marks WHERE subject = :subject

-- name: series
-- The instruments that have ever had a bar of an interval: each write leaves a row here.
SELECT instrument_id FROM coverage WHERE interval = CAST(:interval AS bar_interval) ORDER BY 1

-- name: uncover
-- Time before :before is answered for no longer. In the order in which writers take these rows.
WITH old AS (
    SELECT instrument_id FROM coverage
    WHERE interval = CAST(:interval AS bar_interval) AND lower(covered) < :before
    ORDER BY instrument_id LIMIT :most FOR UPDATE
)
UPDATE coverage c SET covered = c.covered - tstzmultirange(tstzrange(NULL, :before))
FROM old WHERE c.instrument_id = old.instrument_id AND c.interval = CAST(:interval AS bar_interval)

-- name: give_up
-- Jobs that wait or have failed for time that is kept no longer: nobody wants their bars, their letters are resolved.
WITH over AS (
    UPDATE backfill_jobs
    SET status = 'cancelled', updated_at = now(), last_error = coalesce(last_error, 'what it asks for is not kept any more')
    WHERE id = ANY (ARRAY(
        SELECT id FROM backfill_jobs
        WHERE interval = CAST(:interval AS bar_interval) AND status IN ('deferred', 'failed')
          AND upper("window") <= :before
        ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED
    ))
    RETURNING id
), resolved AS (
    UPDATE dead_letters l SET state = 'resolved', requeued_by = 'retention', updated_at = now()
    FROM over WHERE l.job_id = over.id AND l.state = 'open'
)
SELECT count(*) FROM over

-- name: silences
DELETE FROM silences WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM silences
    WHERE instrument_id = ANY (CAST(:instruments AS integer[])) AND interval = CAST(:interval AS bar_interval)
      AND starts_at < :before AND ends_at <= :before
    LIMIT :most
))

-- name: silence_revisions
DELETE FROM silence_revisions WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM silence_revisions
    WHERE instrument_id = ANY (CAST(:instruments AS integer[])) AND interval = CAST(:interval AS bar_interval)
      AND starts_at < :before AND ends_at <= :before
    LIMIT :most
))

-- name: coverage_changes
DELETE FROM coverage_changes WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM coverage_changes
    WHERE instrument_id = ANY (CAST(:instruments AS integer[])) AND interval = CAST(:interval AS bar_interval)
      AND ends_at <= :before
    LIMIT :most
))

-- name: gaps
-- The ledger of time that is kept no longer; an open one is closed by the next scan first.
DELETE FROM gaps WHERE id = ANY (ARRAY(
    SELECT id FROM gaps
    WHERE instrument_id = ANY (CAST(:instruments AS integer[])) AND interval = CAST(:interval AS bar_interval)
      AND closed_at IS NOT NULL AND upper("window") <= :before
    LIMIT :most
))

-- name: bar_revisions
DELETE FROM bar_revisions WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM bar_revisions
    WHERE instrument_id = ANY (CAST(:instruments AS integer[])) AND interval = CAST(:interval AS bar_interval)
      AND ts < :before
    LIMIT :most
))

-- name: bars
-- The bars of an interval in a month that is over for it, where other intervals are kept longer.
DELETE FROM {partition} WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {partition}
    WHERE instrument_id = ANY (CAST(:instruments AS integer[])) AND interval = CAST(:interval AS bar_interval)
    LIMIT :most
))

-- name: any_row
-- Whether a partition holds anything. Through the index: dead rows, which a read marks as such, are not looked at twice.
SELECT EXISTS (SELECT FROM {partition} ORDER BY instrument_id LIMIT 1)

-- name: lock_alone
-- Nobody reads or writes the table until the commit: its partition goes. The table first, as writers do.
LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE

-- name: drop
DROP TABLE {partition}

-- name: old_bar_revisions
-- What was replaced before :before: reads as of an earlier instant are not answered any more. Nor is what coverage was,
-- what was said of silence, and how large gaps were: each of these undoes one change, so older ones are not needed.
DELETE FROM bar_revisions WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM bar_revisions WHERE superseded_at < :before LIMIT :most
))

-- name: old_silence_revisions
DELETE FROM silence_revisions WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM silence_revisions WHERE superseded_at < :before LIMIT :most
))

-- name: old_gap_revisions
DELETE FROM gap_revisions WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM gap_revisions WHERE superseded_at < :before LIMIT :most
))

-- name: old_coverage_changes
DELETE FROM coverage_changes WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM coverage_changes WHERE at < :before LIMIT :most
))

-- name: quarantine
DELETE FROM bar_quarantine WHERE id = ANY (ARRAY(
    SELECT id FROM bar_quarantine WHERE seen_at < :before ORDER BY id LIMIT :most
))

-- name: reconciliations
DELETE FROM reconciliations WHERE id = ANY (ARRAY(
    SELECT id FROM reconciliations WHERE at < :before ORDER BY at LIMIT :most
))

-- name: letters
-- Letters that people are done with. Those of a job that is not over stay: they count its lives.
DELETE FROM dead_letters WHERE id = ANY (ARRAY(
    SELECT l.id FROM dead_letters l
    WHERE l.state <> 'open' AND l.updated_at < :before
      AND NOT EXISTS (SELECT FROM backfill_jobs j WHERE j.id = l.job_id AND j.status NOT IN ('done', 'cancelled'))
    ORDER BY l.id LIMIT :most FOR UPDATE SKIP LOCKED
))

-- name: plans
DELETE FROM requeue_plans WHERE id = ANY (ARRAY(
    SELECT id FROM requeue_plans WHERE created_at < :before ORDER BY id LIMIT :most
))

-- name: open_requests
-- Requests that a job of theirs is not done for: it waits, runs, or has failed and waits for people.
SELECT CAST(request_id AS text) FROM backfill_jobs
WHERE status IN ('deferred', 'queued', 'running', 'failed') AND request_id IS NOT NULL
UNION
SELECT CAST(r.request_id AS text) FROM backfill_jobs j JOIN request_jobs r ON r.job_id = j.id
WHERE j.status IN ('deferred', 'queued', 'running', 'failed')

-- name: jobs
-- Jobs that are over, of no open request and without an open letter. Of their attempts those that left something (bars, a
-- silence, a bar that broke a rule) stay, thin, for whoever asks where it came from.
WITH over AS MATERIALIZED (
    SELECT id, instrument_id, interval, "window" FROM backfill_jobs j
    WHERE j.status IN ('done', 'cancelled') AND j.updated_at < :before
      AND (j.request_id IS NULL OR j.request_id <> ALL (CAST(:open AS uuid[])))
      AND NOT EXISTS (
          SELECT FROM request_jobs r WHERE r.job_id = j.id AND r.request_id = ANY (CAST(:open AS uuid[]))
      )
      AND NOT EXISTS (SELECT FROM dead_letters l WHERE l.job_id = j.id AND l.state = 'open')
    ORDER BY j.updated_at LIMIT :most FOR UPDATE SKIP LOCKED
), mine AS MATERIALIZED (
    SELECT a.id, a.bars > 0
        OR EXISTS (
            SELECT FROM bar_quarantine q
            WHERE q.instrument_id = o.instrument_id AND q.interval = o.interval AND q.attempt_id = a.id
        )
        OR EXISTS (
            SELECT FROM silences s
            WHERE s.instrument_id = o.instrument_id AND s.interval = o.interval AND s.attempt_id = a.id
              AND s.starts_at >= lower(o."window") AND s.starts_at < upper(o."window")
        ) AS left_something
    FROM over o JOIN job_attempts a ON a.job_id = o.id
), spent AS (
    DELETE FROM job_attempts a USING mine WHERE a.id = mine.id AND NOT mine.left_something
), thinned AS (
    UPDATE job_attempts a SET route = NULL, message = NULL
    FROM mine WHERE a.id = mine.id AND mine.left_something AND (a.route IS NOT NULL OR a.message IS NOT NULL)
), unlinked AS (
    DELETE FROM request_jobs r USING over WHERE r.job_id = over.id
), gone AS (
    DELETE FROM backfill_jobs j USING over WHERE j.id = over.id
)
SELECT count(*) FROM over

-- name: live_attempts
-- The next attempts of live fetches by id: those for quotes go, those for bars stay, thin. Answers how many were looked at
-- and how many were changed. Ids follow the order in which attempts begin, but for a few at the edge, whose turn comes later.
WITH page AS MATERIALIZED (
    SELECT a.id, a.job_type, a.started_at < :before AS old, a.route IS NOT NULL OR a.message IS NOT NULL AS thick
    FROM job_attempts a
    WHERE a.id > (SELECT reached FROM retention_marks WHERE subject = 'jobs')
    ORDER BY a.id LIMIT :most
), mine AS MATERIALIZED (
    SELECT * FROM page WHERE id < coalesce((SELECT min(id) FROM page WHERE NOT old), 9223372036854775807)
), spent AS (
    DELETE FROM job_attempts a USING mine WHERE a.id = mine.id AND mine.job_type = 'quotes_fetch'
), thinned AS (
    UPDATE job_attempts a SET route = NULL, message = NULL
    FROM mine WHERE a.id = mine.id AND mine.job_type = 'bars_fetch' AND mine.thick
), moved AS (
    UPDATE retention_marks SET reached = greatest(reached, (SELECT max(id) FROM mine)) WHERE subject = 'jobs'
)
SELECT (SELECT count(*) FROM mine), count(*) FROM mine WHERE job_type = 'quotes_fetch' OR (job_type = 'bars_fetch' AND thick)

-- name: spent_attempts
-- The oldest attempts whose job is gone and that began before every bar that is kept.
DELETE FROM job_attempts WHERE id = ANY (ARRAY(
    SELECT a.id FROM job_attempts a
    WHERE a.started_at < :before AND NOT EXISTS (SELECT FROM backfill_jobs j WHERE j.id = a.job_id)
    ORDER BY a.id LIMIT :most
))

-- name: requests
-- Requests of which no job is left.
DELETE FROM requests WHERE id = ANY (ARRAY(
    SELECT r.id FROM requests r
    WHERE r.created_at < :before
      AND NOT EXISTS (SELECT FROM backfill_jobs j WHERE j.request_id = r.id)
      AND NOT EXISTS (SELECT FROM request_jobs l WHERE l.request_id = r.id)
    ORDER BY r.created_at LIMIT :most FOR UPDATE SKIP LOCKED
))

-- name: holdings
-- What each table takes: rows as PostgreSQL estimates them (null: it never looked), bytes with indexes, partitions.
SELECT coalesce(p.relname, c.relname) AS "table", (sum(c.reltuples) FILTER (WHERE c.reltuples >= 0))::bigint AS rows,
       sum(pg_total_relation_size(c.oid))::bigint AS bytes, count(p.relname) AS partitions
FROM pg_class c
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class p ON p.oid = i.inhparent
WHERE c.relkind = 'r' AND c.relnamespace = CAST('public' AS regnamespace)
  AND coalesce(p.relname, c.relname) = ANY (CAST(:tables AS text[]))
GROUP BY 1 ORDER BY 1

-- name: count_bars
-- How many bars of each interval a partition holds.
SELECT interval, count(*) FROM {partition} GROUP BY interval ORDER BY interval

-- name: count_revisions_of_bars
SELECT count(*) FROM bar_revisions WHERE interval = CAST(:interval AS bar_interval) AND ts < :before

-- name: count_revisions
SELECT count(*) FROM bar_revisions WHERE superseded_at < :before

-- name: count_quarantine
SELECT count(*) FROM bar_quarantine WHERE seen_at < :before

-- name: count_reconciliation
SELECT count(*) FROM reconciliations WHERE at < :before

-- name: count_slo
SELECT count(*) FROM slo_snapshots WHERE at < :before

-- name: count_letters
SELECT count(*) FROM dead_letters l
WHERE l.state <> 'open' AND l.updated_at < :before
  AND NOT EXISTS (SELECT FROM backfill_jobs j WHERE j.id = l.job_id AND j.status NOT IN ('done', 'cancelled'))

-- name: count_jobs
SELECT count(*) FROM backfill_jobs j
WHERE j.status IN ('done', 'cancelled') AND j.updated_at < :before
  AND (j.request_id IS NULL OR j.request_id <> ALL (CAST(:open AS uuid[])))
  AND NOT EXISTS (SELECT FROM request_jobs r WHERE r.job_id = j.id AND r.request_id = ANY (CAST(:open AS uuid[])))
  AND NOT EXISTS (SELECT FROM dead_letters l WHERE l.job_id = j.id AND l.state = 'open')
