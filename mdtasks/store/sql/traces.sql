-- Slow provider calls and their traces: kept within bounds, listed, let go.

-- name: hurry
-- No statement of this transaction takes longer than :most_ms: a fetch waits for it.
SELECT set_config('statement_timeout', CAST(:most_ms AS text), true)

-- name: lock
-- One at a time counts and lets go.
SELECT pg_advisory_xact_lock(hashtext('mdtasks.traces'))

-- name: insert
-- Record a slow call.
INSERT INTO slow_calls (at, provider, capability, symbols, symbol_count, "window", job_id, attempt_id, attempt,
                        policy_version, worker, latency_s, threshold_s, error_class, bytes, trace)
VALUES (:at, :provider, :capability, CAST(:symbols AS text[]), :symbol_count,
        CASE WHEN CAST(:start AS timestamptz) IS NOT NULL THEN tstzrange(:start, :end) END,
        :job_id, :attempt_id, :attempt, :policy_version, :worker, :latency_s, :threshold_s, :error_class,
        octet_length(CAST(:trace AS bytea)), CAST(:trace AS bytea))
RETURNING id

-- name: let_go
-- Let go of the oldest traces beyond :keep of them and :keep_bytes in all; their records stay.
UPDATE slow_calls SET trace = NULL, bytes = NULL
WHERE id IN (
    SELECT id FROM (
        SELECT id, row_number() OVER newest AS number, sum(bytes) OVER newest AS total
        FROM slow_calls WHERE bytes IS NOT NULL
        WINDOW newest AS (ORDER BY at DESC, id DESC ROWS UNBOUNDED PRECEDING)
    ) kept
    WHERE number > :keep OR total > :keep_bytes
)

-- name: forget
-- Delete records that are older than :before, and the oldest beyond :most.
DELETE FROM slow_calls
WHERE at < :before OR id IN (SELECT id FROM slow_calls ORDER BY at DESC, id DESC OFFSET :most)

-- name: list
-- Slow calls, newest first, without their traces.
SELECT id, at, provider, capability, symbols, symbol_count, lower("window") AS start, upper("window") AS "end", job_id,
       attempt_id, attempt, policy_version, worker, latency_s, threshold_s, error_class, bytes
FROM slow_calls
WHERE (CAST(:provider AS text) IS NULL OR provider = :provider)
  AND (CAST(:capability AS text) IS NULL OR capability = :capability)
  AND (CAST(:job_id AS text) IS NULL OR job_id = :job_id)
  AND (CAST(:since AS timestamptz) IS NULL OR at >= :since)
  AND (CAST(:min_latency_s AS double precision) IS NULL OR latency_s >= :min_latency_s)
ORDER BY at DESC, id DESC
LIMIT :limit

-- name: one
SELECT id, at, provider, capability, symbols, symbol_count, lower("window") AS start, upper("window") AS "end", job_id,
       attempt_id, attempt, policy_version, worker, latency_s, threshold_s, error_class, bytes
FROM slow_calls WHERE id = :id

-- name: trace
SELECT trace FROM slow_calls WHERE id = :id
