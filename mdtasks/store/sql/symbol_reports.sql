-- The universe as people look through it.

-- name: symbols
-- Symbols that match, each with how its data stand. Every look beside it is one into an index.
SELECT symbol, mic, kind, tier, intervals, fresh_until, gaps, active, failed, state
FROM (
    SELECT s.symbol, i.mic, i.kind, i.tier, coalesce(c.intervals, '{}') AS intervals, c.fresh_until,
           g.gaps, a.active, f.failed,
           CASE WHEN f.failed > 0 THEN 'dead' WHEN g.gaps > 0 THEN 'gaps' WHEN a.active > 0 THEN 'fetching'
                WHEN c.intervals IS NULL THEN 'empty' ELSE 'quiet' END AS state
    FROM symbols s
    JOIN instruments i ON i.id = s.instrument_id
    CROSS JOIN LATERAL (
        SELECT array_agg(interval::text ORDER BY interval) AS intervals, max(fresh_until) AS fresh_until
        FROM coverage WHERE instrument_id = i.id
    ) c
    CROSS JOIN LATERAL (SELECT count(*) AS gaps FROM gaps WHERE instrument_id = i.id AND closed_at IS NULL) g
    CROSS JOIN LATERAL (
        SELECT count(*) AS active FROM backfill_jobs
        WHERE instrument_id = i.id AND status IN ('deferred', 'queued', 'running')
    ) a
    CROSS JOIN LATERAL (
        SELECT count(*) AS failed FROM backfill_jobs WHERE instrument_id = i.id AND status = 'failed'
    ) f
    WHERE s.valid_to = 'infinity'
      AND (CAST(:tier AS text) IS NULL OR i.tier = CAST(:tier AS tier))
      AND (CAST(:search AS text) IS NULL OR strpos(upper(s.symbol), upper(:search)) > 0)
) u
WHERE CAST(:state AS text) IS NULL OR state = :state
ORDER BY CAST(:search AS text) IS NOT NULL AND strpos(upper(symbol), upper(coalesce(:search, ''))) > 1, tier, symbol
LIMIT :limit

-- name: by_tier
-- How many symbols each tier has.
SELECT i.tier, count(*)
FROM symbols s JOIN instruments i ON i.id = s.instrument_id
WHERE s.valid_to = 'infinity'
GROUP BY i.tier

-- name: jobs
-- The jobs of a series that reach into a window and are not over, or have died; the newest window first.
SELECT j.id, lower(j."window"), upper(j."window"), j.status, j.attempts, j.max_attempts, j.last_error,
       j.last_error_class, CAST(j.request_id AS text), l.id
FROM backfill_jobs j
LEFT JOIN dead_letters l ON l.job_id = j.id AND l.state = 'open'
WHERE j.instrument_id = :instrument AND j.interval = CAST(:interval AS bar_interval)
  AND j.status IN ('deferred', 'queued', 'running', 'failed') AND j."window" && tstzrange(:start, :end)
ORDER BY upper(j."window") DESC
LIMIT :limit
