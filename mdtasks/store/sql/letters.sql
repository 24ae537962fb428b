-- Dead letters: record, list, group, freeze a set, requeue it, purge.

-- name: record
-- Keep a letter once: recording it again changes nothing, except that one that was made up (of a failed job whose
-- message seemed lost) gets the envelope of the message that came after all. It bears the policy of the last attempt.
INSERT INTO dead_letters
    (id, kind, job_id, task, queue, tier, symbol, interval, "window", provider, error_class, message, traceback,
     attempts, policy_version, envelope)
VALUES (:id, :kind, :job_id, :task, :queue, CAST(:tier AS tier), :symbol, CAST(:interval AS bar_interval),
        CAST(:window AS tstzrange), :provider, :error_class, left(:message, 4000), :traceback, :attempts,
        (SELECT policy_version FROM job_attempts WHERE job_id = :job_id ORDER BY id DESC LIMIT 1), :envelope)
ON CONFLICT (id) DO UPDATE
SET envelope = excluded.envelope, traceback = excluded.traceback, queue = excluded.queue
WHERE dead_letters.envelope = '' AND excluded.envelope <> ''
RETURNING CASE WHEN xmax = 0 THEN id END AS id

-- name: failed_job
-- What the letter of a failed job says, taken from its row and its last attempt.
SELECT j.id AS job_id, j.tier, j.symbol, j.interval, j."window"::text AS "window", j.attempts, j.fence,
       coalesce(j.last_error_class, 'unknown') AS error_class, coalesce(j.last_error, '') AS message, a.provider
FROM backfill_jobs j
LEFT JOIN LATERAL (SELECT provider FROM job_attempts WHERE job_id = j.id ORDER BY id DESC LIMIT 1) a ON true
WHERE j.id = :job_id AND j.status = 'failed'

-- name: unlettered
-- Failed jobs whose letter never arrived (a crash between the failure and its burial).
SELECT j.id FROM backfill_jobs j
WHERE j.status = 'failed' AND j.updated_at < now() - make_interval(secs => :grace_s)
  AND NOT EXISTS (SELECT 1 FROM dead_letters l WHERE l.id = j.id || ':' || j.fence)
LIMIT 1000

-- name: matching
-- Open letters by filter, newest first; :jobs: but for findings, for which nothing was sent.
SELECT id, kind, job_id, task, queue, tier, symbol, interval, lower("window") AS start, upper("window") AS "end",
       provider, error_class, message, attempts, state, died_at, updated_at
FROM dead_letters
WHERE state = 'open'
  AND (CAST(:backfills AS boolean) IS NULL OR (kind = 'backfill') = :backfills)
  AND (CAST(:tier AS text) IS NULL OR tier = CAST(:tier AS tier))
  AND (CAST(:symbol AS text) IS NULL OR symbol = :symbol)
  AND (CAST(:provider AS text) IS NULL OR coalesce(provider, '') = :provider)
  AND (CAST(:error_class AS text) IS NULL OR error_class = :error_class)
  AND (CAST(:since AS timestamptz) IS NULL OR died_at >= :since)
  AND (CAST(:task AS text) IS NULL OR coalesce(task, '') = :task)
  AND (NOT CAST(:jobs AS boolean) OR kind <> :finding)
ORDER BY died_at DESC, id
LIMIT :limit

-- name: by_ids
-- Those of a frozen set that are still open, newest first.
SELECT id, kind, job_id, task, queue, tier, symbol, interval, lower("window") AS start, upper("window") AS "end",
       provider, error_class, message, attempts, state, died_at, updated_at
FROM dead_letters
WHERE state = 'open' AND id IN (SELECT jsonb_array_elements_text(CAST(:ids AS jsonb)))
ORDER BY died_at DESC, id

-- name: one
SELECT id, kind, job_id, task, queue, tier, symbol, interval, lower("window") AS start, upper("window") AS "end",
       provider, error_class, message, traceback, attempts, policy_version, envelope, state, requeued_by, died_at,
       updated_at
FROM dead_letters
WHERE id = :id OR job_id = :id
ORDER BY (state = 'open') DESC, died_at DESC
LIMIT 1

-- name: groups
-- Open letters by cause: one row per provider, error class and task.
SELECT coalesce(provider, '') AS provider, error_class, coalesce(task, '') AS task, count(*) AS letters,
       count(*) FILTER (WHERE kind = :finding) AS findings, count(DISTINCT symbol) AS symbols,
       min(died_at) AS first_seen, max(died_at) AS last_seen,
       (array_agg(message ORDER BY died_at DESC))[1] AS example
FROM dead_letters
WHERE state = 'open' AND (CAST(:backfills AS boolean) IS NULL OR (kind = 'backfill') = :backfills)
GROUP BY 1, 2, 3
ORDER BY letters DESC, last_seen DESC

-- name: kinds
-- How many letters are open of which kind, most first.
SELECT kind, count(*) AS letters FROM dead_letters WHERE state = 'open' GROUP BY kind ORDER BY letters DESC, kind

-- name: stats
SELECT count(*) FILTER (WHERE state = 'open') AS open,
       count(*) FILTER (WHERE state = 'requeued') AS requeued,
       count(*) FILTER (WHERE state = 'resolved') AS resolved,
       count(*) FILTER (WHERE state = 'open' AND kind = 'backfill') AS backfills,
       min(died_at) FILTER (WHERE state = 'open') AS oldest,
       max(died_at) FILTER (WHERE state = 'open') AS newest
FROM dead_letters

-- name: plan_create
-- Freeze a set of letters: what is requeued later is exactly this.
INSERT INTO requeue_plans (planned_by, filter, letter_ids)
VALUES (:planned_by, CAST(:filter AS jsonb), CAST(:letter_ids AS jsonb))
RETURNING CAST(id AS text)

-- name: plan_take
-- A plan for execution, locked; executed_at tells whether it was carried out before.
SELECT CAST(id AS text) AS id, filter, letter_ids, executed_at, result
FROM requeue_plans WHERE id = CAST(:id AS uuid) FOR UPDATE

-- name: plan_close
UPDATE requeue_plans SET executed_at = now(), result = CAST(:result AS jsonb) WHERE id = CAST(:id AS uuid)

-- name: plan_progress
-- How the jobs of a plan's letters stand.
SELECT j.status, count(*) AS jobs
FROM backfill_jobs j
WHERE j.id IN (
    SELECT d.job_id FROM dead_letters d
    WHERE d.id IN (SELECT jsonb_array_elements_text(CAST(:ids AS jsonb))) AND d.kind = 'backfill')
GROUP BY j.status

-- name: requeue_jobs
-- Give failed jobs another life, unless an active job already asks for their window: attempts count afresh, history
-- stays. Only letters that are still open, only jobs that are still failed.
WITH letters AS (
    SELECT id, job_id FROM dead_letters
    WHERE id IN (SELECT jsonb_array_elements_text(CAST(:ids AS jsonb))) AND state = 'open' AND kind = 'backfill'
    FOR UPDATE
), failed AS (
    SELECT j.id, j.request_id, l.id AS letter_id, wanted.by_job
    FROM letters l JOIN backfill_jobs j ON j.id = l.job_id
    LEFT JOIN LATERAL (
        SELECT o.id AS by_job FROM backfill_jobs o
        WHERE o.instrument_id = j.instrument_id AND o.interval = j.interval AND o.id <> j.id
          AND o.status IN ('deferred', 'queued', 'running') AND o."window" @> j."window"
          AND (j.provider_hint IS NULL OR o.provider_hint = j.provider_hint)
        LIMIT 1
    ) wanted ON true
    WHERE j.status = 'failed'
), revived AS (
    UPDATE backfill_jobs j
    SET status = CASE WHEN f.by_job IS NOT NULL THEN 'cancelled' ELSE 'deferred' END::job_status,
        attempts = 0, not_before = NULL, max_attempts = :max_attempts, updated_at = now()
    FROM failed f WHERE j.id = f.id
    RETURNING j.id, j.status
), linked AS (
    -- Whoever waits for a job that is merged now waits for the one that does its work.
    INSERT INTO request_jobs (request_id, job_id)
    SELECT w.request_id, f.by_job
    FROM failed f JOIN (
        SELECT id, request_id FROM failed WHERE request_id IS NOT NULL
        UNION SELECT r.job_id, r.request_id FROM request_jobs r JOIN failed ON failed.id = r.job_id
    ) w ON w.id = f.id
    WHERE f.by_job IS NOT NULL
    ON CONFLICT DO NOTHING
), closed AS (
    UPDATE dead_letters d SET state = 'requeued', requeued_by = :actor, updated_at = now()
    FROM failed f WHERE d.id = f.letter_id
)
SELECT id, status FROM revived

-- name: requeueable
-- Open letters that are no backfills, as they were on the wire.
SELECT id, queue, envelope FROM dead_letters
WHERE id IN (SELECT jsonb_array_elements_text(CAST(:ids AS jsonb))) AND state = 'open' AND kind <> 'backfill'
FOR UPDATE

-- name: mark_requeued
UPDATE dead_letters SET state = 'requeued', requeued_by = :actor, updated_at = now()
WHERE id IN (SELECT jsonb_array_elements_text(CAST(:ids AS jsonb))) AND state = 'open'

-- name: older
-- What a purge of letters that died before :before would delete, by cause, and how many jobs it would give up.
SELECT d.state, d.error_class, d.provider, count(*) AS letters, count(j.id) AS jobs,
       min(d.died_at) AS first_died, max(d.died_at) AS last_died
FROM dead_letters d
LEFT JOIN backfill_jobs j
    ON d.state = 'open' AND j.id = d.job_id AND j.status = 'failed' AND d.id = j.id || ':' || j.fence
WHERE d.died_at < CAST(:before AS timestamptz)
  AND (CAST(:backfills AS boolean) IS NULL OR (d.kind = 'backfill') = :backfills)
GROUP BY d.state, d.error_class, d.provider
ORDER BY d.state, letters DESC, d.error_class, d.provider

-- name: purge
-- Delete letters that died before :before, with an audit row that says which, by whom. A job is given up,
-- 'cancelled', when the open letter of its last failure goes: an older one, requeued since, says nothing of it.
WITH purged AS (
    DELETE FROM dead_letters
    WHERE died_at < CAST(:before AS timestamptz)
      AND (CAST(:backfills AS boolean) IS NULL OR (kind = 'backfill') = :backfills)
    RETURNING id, job_id, state
), given_up AS (
    UPDATE backfill_jobs j SET status = 'cancelled', updated_at = now()
    FROM purged p
    WHERE p.state = 'open' AND j.id = p.job_id AND j.status = 'failed' AND p.id = j.id || ':' || j.fence
), audited AS (
    INSERT INTO audit_log (actor, action, details)
    SELECT :actor, 'dlq.purge',
           jsonb_build_object('before', CAST(:before AS timestamptz), 'count', count(*),
                              'ids', coalesce(jsonb_agg(id), '[]'))
    FROM purged
)
SELECT count(*) FROM purged
