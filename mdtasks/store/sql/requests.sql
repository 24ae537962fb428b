-- What is asked for: requests, and the rows of the jobs that they make. One named statement each.

-- name: create
INSERT INTO requests (requested_by, spec) VALUES (:requested_by, CAST(:spec AS jsonb)) RETURNING CAST(id AS text)

-- name: lock
-- One enqueuer at a time looks at what is wanted and adds to it: two cannot both find a window unwanted.
SELECT pg_advisory_xact_lock(hashtext('mdtasks.enqueue'))

-- name: known
-- Which of these ids are jobs already, whatever became of them.
SELECT id FROM backfill_jobs WHERE id = ANY (:ids)

-- name: active
-- The active jobs that reach into what is asked of their instrument now, from its first start to its last end.
SELECT j.id, j.instrument_id, lower(j."window") AS start, upper(j."window") AS "end", j.interval, j.provider_hint
FROM unnest(CAST(:instruments AS integer[]), CAST(:intervals AS bar_interval[]),
            CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[])) AS a (instrument_id, interval, start, "end")
JOIN backfill_jobs j
  ON j.instrument_id = a.instrument_id AND j.interval = a.interval AND j."window" && tstzrange(a.start, a."end")
 AND j.status IN ('deferred', 'queued', 'running')

-- name: link
-- A request also waits for the jobs that it was merged with.
INSERT INTO request_jobs (request_id, job_id)
SELECT CAST(:request_id AS uuid), unnest(CAST(:ids AS text[]))
ON CONFLICT DO NOTHING

-- name: clock
-- The time now: now() is when the transaction began, before it waited for its lock.
SELECT clock_timestamp()

-- name: cancel
-- Cancel what a request asked for first and nobody has begun; what another request waits for too goes on.
UPDATE backfill_jobs j SET status = 'cancelled', updated_at = now()
WHERE j.request_id = CAST(:request_id AS uuid) AND j.status IN ('deferred', 'queued')
  AND NOT EXISTS (SELECT FROM request_jobs r WHERE r.job_id = j.id AND r.request_id <> j.request_id)
