-- Durable backfill jobs: claim, settle, dispatch, reconcile, report. One named statement each.

-- name: defer
-- Give back what the queue had no room for after all.
UPDATE backfill_jobs SET status = 'deferred', queued_at = NULL, updated_at = now()
WHERE id = ANY (:ids) AND status = 'queued'

-- name: claim
-- Take a job for one attempt: only when it waits (one whose lease ran out waits again once the reconciler has ended
-- that attempt). Counts the attempt at once, so that a job that kills its worker comes to its end. No row: somebody else has it, or it is over.
WITH claimed AS (
    UPDATE backfill_jobs
    SET status = 'running', attempts = attempts + 1, fence = fence + 1,
        lease_until = now() + make_interval(secs => :lease_s),
        attempt_id = nextval(pg_get_serial_sequence('job_attempts', 'id')),
        not_before = NULL, updated_at = now()
    WHERE id = :job_id
      AND attempts < max_attempts
      AND (status = 'queued' OR (status = 'deferred' AND coalesce(not_before, '-infinity') <= now()))
    RETURNING *
), started AS (
    INSERT INTO job_attempts (id, job_id, job_type, attempt, fence, worker, policy_version) OVERRIDING SYSTEM VALUE
    SELECT attempt_id, id, 'backfill', attempts, fence, :worker, :policy_version FROM claimed
)
SELECT c.id, c.instrument_id, coalesce(s.symbol, c.symbol) AS symbol, i.mic, i.kind, c.interval, lower(c."window") AS start, upper(c."window") AS "end",
       c.tier, c.provider_hint, c.attempts, c.max_attempts, c.fence, c.attempt_id
FROM claimed c JOIN instruments i ON i.id = c.instrument_id
LEFT JOIN symbols s ON s.instrument_id = c.instrument_id AND s.valid_to = 'infinity'  -- it may have been renamed since

-- name: live_attempt
-- Open the attempt of a live fetch: it has no job row, its bars still tell where they came from.
INSERT INTO job_attempts (job_id, job_type, attempt, fence, worker, policy_version)
VALUES (:job_id, :job_type, 1, 0, :worker, :policy_version)
RETURNING id

-- name: close_attempt
-- End an attempt once: what came out, by which provider, why not.
UPDATE job_attempts
SET ended_at = clock_timestamp(), outcome = :outcome, provider = coalesce(:provider, provider),
    error_class = :error_class, message = left(:message, 2000), bars = :bars, route = CAST(:route AS jsonb)
WHERE id = :attempt_id AND ended_at IS NULL

-- name: finish
-- The job is done, if this claim still holds it. No row: the claim is stale and the transaction must roll back.
UPDATE backfill_jobs
SET status = 'done', bars = :bars, lease_until = NULL, attempt_id = NULL, updated_at = clock_timestamp(),
    last_error = NULL, last_error_class = NULL  -- its attempts tell what it met on the way
WHERE id = :job_id AND fence = :fence AND status = 'running'
RETURNING id

-- name: fail
-- An attempt failed, if this claim still holds the job: to be tried again after a pause, or (none) failed for good.
UPDATE backfill_jobs
SET status = CASE WHEN CAST(:pause_s AS double precision) IS NULL THEN 'failed' ELSE 'deferred' END::job_status,
    not_before = now() + make_interval(secs => :pause_s),
    lease_until = NULL, attempt_id = NULL, queued_at = NULL, bars = greatest(bars, :bars),
    last_error = left(:message, 2000), last_error_class = :error_class, updated_at = clock_timestamp()
WHERE id = :job_id AND fence = :fence AND status = 'running'
RETURNING id

-- name: hold
-- Nobody could be asked, or only one whose outage it is: the job waits, if this claim still holds it, and its attempt
-- does not count. With :forget it is as if it had not been.
WITH held AS (
    UPDATE backfill_jobs
    SET status = 'deferred', attempts = attempts - 1, not_before = now() + make_interval(secs => :pause_s),
        lease_until = NULL, attempt_id = NULL, queued_at = NULL, bars = greatest(bars, :bars),
        last_error = left(:message, 2000), last_error_class = :error_class, updated_at = clock_timestamp()
    WHERE id = :job_id AND fence = :fence AND status = 'running'
    RETURNING id
), forgotten AS (
    DELETE FROM job_attempts WHERE id = :attempt_id AND :forget
)
SELECT id FROM held

-- name: running_under
-- The running claim of a job that a given worker process holds, locked; used when the process itself can't tell any more.
SELECT j.id, j.attempts, j.max_attempts, j.fence, j.attempt_id
FROM backfill_jobs j JOIN job_attempts a ON a.id = j.attempt_id
WHERE j.id = :job_id AND j.status = 'running' AND a.worker = :worker
FOR UPDATE OF j

-- name: expired
-- Claims whose lease has run out: their worker was lost without a word. Locked, oldest first.
SELECT j.id, j.attempts, j.max_attempts, j.fence, j.attempt_id
FROM backfill_jobs j
WHERE j.status = 'running' AND j.lease_until < now()
ORDER BY j.lease_until
LIMIT :limit
FOR UPDATE SKIP LOCKED

-- name: held_by_node
-- Claims of a node's processes, locked, those of :alive aside: a node that starts has lost what it held before.
SELECT j.id, j.attempts, j.max_attempts, j.fence, j.attempt_id
FROM backfill_jobs j JOIN job_attempts a ON a.id = j.attempt_id
WHERE j.status = 'running' AND a.ended_at IS NULL AND a.worker LIKE :node || '/%'
  AND a.worker <> ALL (CAST(:alive AS text[]))
FOR UPDATE OF j SKIP LOCKED

-- name: ripen
-- Jobs of a tier whose pause is over may go out, those due longest first; bounded, the rest follows in the next round.
UPDATE backfill_jobs SET not_before = NULL
WHERE id = ANY (ARRAY(
    SELECT id FROM backfill_jobs
    WHERE tier = CAST(:tier AS tier) AND status = 'deferred' AND not_before <= now()
    ORDER BY not_before
    LIMIT :most
    FOR UPDATE SKIP LOCKED
))

-- name: wake_held
-- Jobs that wait because a provider was not asked, and may ask one of :names, wait no longer; those that somebody is
-- just changing are left alone.
UPDATE backfill_jobs SET not_before = now()
WHERE id = ANY (ARRAY(
    SELECT id FROM backfill_jobs
    WHERE status = 'deferred' AND not_before > now() AND last_error_class = ANY (CAST(:held AS text[]))
      AND (provider_hint IS NULL OR provider_hint = ANY (CAST(:names AS text[])))
    FOR UPDATE SKIP LOCKED
))

-- name: dispatch
-- Take waiting jobs of a tier, newest window first, at most :room; they are 'queued' and must be pushed next. Walks
-- backfill_jobs_waiting in its order: nothing is sorted, however much waits.
WITH due AS (
    SELECT id FROM backfill_jobs
    WHERE tier = CAST(:tier AS tier) AND status = 'deferred' AND not_before IS NULL
    ORDER BY upper("window") DESC, id
    LIMIT :room
    FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE backfill_jobs j SET status = 'queued', queued_at = clock_timestamp(), not_before = NULL, updated_at = now()
    FROM due WHERE j.id = due.id
    RETURNING j.id, j.symbol, j.interval, lower(j."window") AS start, upper(j."window") AS "end", j.tier, j.provider_hint
)
SELECT * FROM taken ORDER BY "end" DESC, id

-- name: queued_before
-- Jobs that have been 'queued' for longer than :grace_s: each must be in the broker, or it was lost on the way.
SELECT id FROM backfill_jobs
WHERE status = 'queued' AND queued_at < now() - make_interval(secs => :grace_s)

-- name: lost
-- Send lost messages again: their jobs are deferred, for the dispatcher. Only those that have still been queued for too long.
UPDATE backfill_jobs SET status = 'deferred', queued_at = NULL, updated_at = now()
WHERE id = ANY (:ids) AND status = 'queued' AND queued_at < now() - make_interval(secs => :grace_s)
RETURNING id

-- name: statuses
-- How these jobs stand; an id that is no backfill job has no row.
SELECT id, status FROM backfill_jobs WHERE id = ANY (:ids)

-- name: request_progress
-- How a request stands: jobs by status, bars stored so far, and the newest error.
SELECT j.status, count(*) AS jobs, coalesce(sum(j.bars), 0) AS bars,
       (array_agg(j.last_error ORDER BY j.updated_at DESC) FILTER (WHERE j.last_error IS NOT NULL))[1] AS last_error
FROM (
    SELECT status, bars, last_error, updated_at FROM backfill_jobs WHERE request_id = CAST(:request_id AS uuid)
    UNION ALL
    SELECT b.status, b.bars, b.last_error, b.updated_at
    FROM request_jobs r JOIN backfill_jobs b ON b.id = r.job_id
    WHERE r.request_id = CAST(:request_id AS uuid) AND b.request_id IS DISTINCT FROM r.request_id
) j
GROUP BY j.status

-- name: request_exists
SELECT spec, created_at, requested_by FROM requests WHERE id = CAST(:request_id AS uuid)

-- name: backlog
-- What waits per tier: jobs by status and since when the oldest waits. Read at scrape time.
SELECT tier, status, count(*) AS jobs,
       extract(epoch FROM now() - min(created_at)) AS oldest_age_s
FROM backfill_jobs
WHERE status IN ('deferred', 'queued', 'running')
GROUP BY tier, status

-- name: list
-- Jobs, newest change first.
SELECT id, symbol, interval, lower("window") AS start, upper("window") AS "end", tier, provider_hint, status, attempts,
       max_attempts, bars, last_error_class, last_error, created_at, updated_at, not_before
FROM backfill_jobs
WHERE (CAST(:status AS text) IS NULL OR status = CAST(:status AS job_status))
  AND (CAST(:tier AS text) IS NULL OR tier = CAST(:tier AS tier))
  AND (CAST(:symbol AS text) IS NULL OR symbol = :symbol)
ORDER BY updated_at DESC
LIMIT :limit

-- name: one
SELECT id, symbol, interval, lower("window") AS start, upper("window") AS "end", tier, provider_hint, status, attempts,
       max_attempts, bars, last_error_class, last_error, created_at, updated_at, queued_at, not_before, lease_until,
       policy_version
FROM backfill_jobs WHERE id = :job_id

-- name: attempts
-- The history of a job over all its lives, with the slow provider calls of each attempt and those traced among them.
SELECT a.id, attempt, fence, worker, provider, started_at, ended_at, outcome, error_class, message, bars, route, policy_version,
       (SELECT count(*) FROM slow_calls s WHERE s.attempt_id = a.id) AS slow_calls,
       ARRAY(SELECT s.id FROM slow_calls s WHERE s.attempt_id = a.id AND s.bytes IS NOT NULL ORDER BY s.id) AS traces
FROM job_attempts a WHERE job_id = :job_id ORDER BY a.id

-- name: cancel
-- Cancel what has not started.
UPDATE backfill_jobs SET status = 'cancelled', updated_at = now()
WHERE id = ANY (:ids) AND status IN ('deferred', 'queued')
RETURNING id
