-- Durable backfill jobs: enqueue, claim, settle, dispatch, reconcile. One named statement each.

-- name: stage_create
-- The batch to be enqueued, as it was asked for; one per connection, emptied by each commit.
CREATE TEMP TABLE IF NOT EXISTS stage_jobs (
    ord           integer,
    id            text,
    instrument_id integer,
    symbol        text,
    interval      bar_interval,
    "window"      tstzrange,
    tier          tier,
    provider_hint text
) ON COMMIT DELETE ROWS

-- name: enqueue_lock
-- One enqueuer at a time looks at what is wanted and adds to it: two cannot both find a window unwanted.
SELECT pg_advisory_xact_lock(hashtext('mdtasks.enqueue'))

-- name: enqueue
-- Insert what is not wanted yet: of each staged window, the part that no earlier line of the batch and no active job
-- of the same instrument and interval (and provider, when one was named) already asks for. The newest windows that
-- fit into :room_t0..t2 are 'queued', to be pushed after this commits; the rest waits as 'deferred'. A request also
-- waits for the active jobs that it was merged with. A line whose id there is already, here or above, is that job sent
-- again: merged, whatever became of it. Answers one row: which lines were queued whole, which were queued trimmed (with
-- their ids and windows), how many wait, and how many lines there is anything left of.
WITH known AS (
    SELECT s.ord, s.id, j.id IS NOT NULL AS is_job
    FROM (SELECT ord, id, row_number() OVER (PARTITION BY id ORDER BY ord) AS nth FROM stage_jobs) s
    LEFT JOIN backfill_jobs j ON j.id = s.id
    WHERE s.nth > 1 OR j.id IS NOT NULL
), marked AS (
    -- Lines that overlap an earlier start of the same key; comparing all lines with all would be quadratic.
    SELECT s.*, coalesce(provider_hint, '') AS hint,
           coalesce(max(upper("window")) OVER (
               PARTITION BY instrument_id, interval, provider_hint ORDER BY lower("window"), ord
               ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
           ) > lower("window"), false) AS crowded
    FROM stage_jobs s
), repeated AS (
    SELECT a.ord, range_agg(b."window") AS windows
    FROM marked a
    JOIN marked b ON b.instrument_id = a.instrument_id AND b.interval = a.interval AND b.hint = a.hint
     AND b.ord < a.ord AND b."window" && a."window"
    WHERE (a.instrument_id, a.interval, a.hint) IN (SELECT instrument_id, interval, hint FROM marked WHERE crowded)
    GROUP BY a.ord
), active AS (
    SELECT s.ord, j.id, j."window"
    FROM stage_jobs s
    JOIN backfill_jobs j
      ON j.instrument_id = s.instrument_id AND j.interval = s.interval AND j."window" && s."window"
     AND j.status IN ('deferred', 'queued', 'running')
     AND (s.provider_hint IS NULL OR j.provider_hint = s.provider_hint)
), wanted AS (
    SELECT ord, range_agg("window") AS windows FROM active GROUP BY ord
), pieces AS (
    SELECT a.*, p.piece,
           row_number() OVER (PARTITION BY a.ord ORDER BY p.piece) AS part,
           row_number() OVER (PARTITION BY a.tier ORDER BY upper(p.piece) DESC, a.ord) AS place,
           CASE a.tier WHEN 'T0' THEN :room_t0 WHEN 'T1' THEN :room_t1 ELSE :room_t2 END AS room
    FROM stage_jobs a LEFT JOIN repeated r USING (ord) LEFT JOIN wanted w USING (ord),
    unnest(tstzmultirange(a."window") - coalesce(r.windows, '{}') - coalesce(w.windows, '{}')) AS p (piece)
    WHERE NOT EXISTS (SELECT FROM known k WHERE k.ord = a.ord)
), named AS (
    -- A part is named after its line, unless that name is taken or longer than ids may be.
    SELECT p.*, CASE
               WHEN part = 1 THEN id
               WHEN length(id) <= 60 AND NOT EXISTS (SELECT FROM backfill_jobs j WHERE j.id = p.id || '.' || part)
                    AND NOT EXISTS (SELECT FROM stage_jobs s WHERE s.id = p.id || '.' || part) THEN id || '.' || part
               ELSE left(id, 24) || '.' || CAST(gen_random_uuid() AS text)
           END AS part_id
    FROM pieces p
), inserted AS (
    INSERT INTO backfill_jobs
        (id, instrument_id, symbol, interval, "window", tier, provider_hint, request_id, status, max_attempts, queued_at)
    SELECT part_id, instrument_id, symbol, interval, piece, tier, provider_hint, CAST(:request_id AS uuid),
           CASE WHEN place <= room THEN 'queued' ELSE 'deferred' END::job_status,
           :max_attempts,
           CASE WHEN place <= room THEN now() END
    FROM named
), linked AS (
    INSERT INTO request_jobs (request_id, job_id)
    SELECT CAST(:request_id AS uuid), id FROM (SELECT id FROM active UNION SELECT id FROM known WHERE is_job) m
    WHERE CAST(:request_id AS uuid) IS NOT NULL
    ON CONFLICT DO NOTHING
)
SELECT array_agg(ord ORDER BY place) FILTER (WHERE place <= room AND piece = "window") AS whole,
       jsonb_agg(jsonb_build_array(ord, part_id, lower(piece), upper(piece)) ORDER BY place)
           FILTER (WHERE place <= room AND piece <> "window") AS trimmed,
       count(*) FILTER (WHERE place > room) AS deferred,
       count(DISTINCT ord) AS kept
FROM named

-- name: defer
-- Give back what the queue had no room for after all.
UPDATE backfill_jobs SET status = 'deferred', queued_at = NULL, updated_at = now()
WHERE id = ANY (:ids) AND status = 'queued'

-- name: claim
-- Take a job for one attempt: only when it has not started, or its lease has run out. Counts the attempt at once, so
-- that a job that kills its worker comes to its end. No row: somebody else has it, or it is over.
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
    INSERT INTO job_attempts (id, job_id, job_type, attempt, fence, worker) OVERRIDING SYSTEM VALUE
    SELECT attempt_id, id, 'backfill', attempts, fence, :worker FROM claimed
)
SELECT c.id, c.instrument_id, c.symbol, i.mic, i.kind, c.interval, lower(c."window") AS start, upper(c."window") AS "end",
       c.tier, c.provider_hint, c.attempts, c.max_attempts, c.fence, c.attempt_id
FROM claimed c JOIN instruments i ON i.id = c.instrument_id

-- name: live_attempt
-- Open the attempt of a live fetch: it has no job row, its bars still tell where they came from.
INSERT INTO job_attempts (job_id, job_type, attempt, fence, worker)
VALUES (:job_id, :job_type, 1, 0, :worker)
RETURNING id

-- name: close_attempt
-- End an attempt once: what came out, by which provider, why not.
UPDATE job_attempts
SET ended_at = clock_timestamp(), outcome = :outcome, provider = coalesce(:provider, provider),
    error_class = :error_class, message = left(:message, 2000), bars = :bars
WHERE id = :attempt_id AND ended_at IS NULL

-- name: finish
-- The job is done, if this claim still holds it. No row: the claim is stale and the transaction must roll back.
UPDATE backfill_jobs
SET status = 'done', bars = :bars, lease_until = NULL, attempt_id = NULL, updated_at = clock_timestamp()
WHERE id = :job_id AND fence = :fence AND status = 'running'
RETURNING id

-- name: fail
-- An attempt failed, if this claim still holds the job: to be tried again after a pause, or (none) failed for good.
UPDATE backfill_jobs
SET status = CASE WHEN CAST(:pause_s AS double precision) IS NULL THEN 'failed' ELSE 'deferred' END::job_status,
    not_before = now() + make_interval(secs => :pause_s),
    lease_until = NULL, attempt_id = NULL, queued_at = NULL,
    last_error = left(:message, 2000), last_error_class = :error_class, updated_at = clock_timestamp()
WHERE id = :job_id AND fence = :fence AND status = 'running'
RETURNING id

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
-- Claims of every process of a node, locked: a node that starts has lost what it held before.
SELECT j.id, j.attempts, j.max_attempts, j.fence, j.attempt_id
FROM backfill_jobs j JOIN job_attempts a ON a.id = j.attempt_id
WHERE j.status = 'running' AND a.ended_at IS NULL AND a.worker LIKE :node || '/%'
FOR UPDATE OF j SKIP LOCKED

-- name: dispatch
-- Take due deferred jobs of a tier, newest window first, at most :room; they are 'queued' and must be pushed next.
WITH due AS (
    SELECT id FROM backfill_jobs
    WHERE tier = CAST(:tier AS tier) AND status = 'deferred' AND (not_before IS NULL OR not_before <= now())
    ORDER BY upper("window") DESC, id
    LIMIT :room
    FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE backfill_jobs j SET status = 'queued', queued_at = now(), not_before = NULL, updated_at = now()
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

-- name: open_ids
-- Which of these jobs are active or failed: a message of any other job is an orphan.
SELECT id FROM backfill_jobs WHERE id = ANY (:ids) AND status IN ('deferred', 'queued', 'running', 'failed')

-- name: all_ids
-- Which of these ids are backfill jobs at all.
SELECT id FROM backfill_jobs WHERE id = ANY (:ids)

-- name: request_create
INSERT INTO requests (requested_by, spec) VALUES (:requested_by, CAST(:spec AS jsonb)) RETURNING CAST(id AS text)

-- name: request_progress
-- How a request stands: jobs by status, bars stored so far, and the newest error.
SELECT j.status, count(*) AS jobs, coalesce(sum(j.bars), 0) AS bars,
       (array_agg(j.last_error ORDER BY j.updated_at DESC) FILTER (WHERE j.last_error IS NOT NULL))[1] AS last_error
FROM backfill_jobs j
WHERE j.request_id = CAST(:request_id AS uuid)
   OR j.id IN (SELECT job_id FROM request_jobs WHERE request_id = CAST(:request_id AS uuid))
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
       max_attempts, bars, last_error_class, last_error, created_at, updated_at, queued_at, not_before, lease_until
FROM backfill_jobs WHERE id = :job_id

-- name: attempts
-- The history of a job over all its lives.
SELECT id, attempt, fence, worker, provider, started_at, ended_at, outcome, error_class, message, bars
FROM job_attempts WHERE job_id = :job_id ORDER BY id

-- name: cancel
-- Cancel what has not started.
UPDATE backfill_jobs SET status = 'cancelled', updated_at = now()
WHERE id = ANY (:ids) AND status IN ('deferred', 'queued')
RETURNING id
