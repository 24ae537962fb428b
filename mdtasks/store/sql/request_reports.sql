-- How requests stand. A request waits for the jobs that it asked for first, and for those that it was merged with.

-- name: asked
-- The newest requests, or the one of an id, each with its jobs by status.
SELECT CAST(r.id AS text) AS id, r.requested_by, r.spec, r.created_at, p.*
FROM (
    SELECT * FROM requests
    WHERE (CAST(:id AS uuid) IS NULL OR id = CAST(:id AS uuid))
      AND (CAST(:by AS text) IS NULL OR requested_by = :by)
      AND (CAST(:but AS text) IS NULL OR requested_by <> :but)
    ORDER BY created_at DESC
    LIMIT :limit
) r
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE status = 'deferred') AS deferred, count(*) FILTER (WHERE status = 'queued') AS queued,
           count(*) FILTER (WHERE status = 'running') AS running, count(*) FILTER (WHERE status = 'done') AS done,
           count(*) FILTER (WHERE status = 'failed') AS failed, count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
           coalesce(sum(bars), 0) AS bars
    FROM (
        SELECT status, bars FROM backfill_jobs WHERE request_id = r.id
        UNION ALL
        SELECT b.status, b.bars FROM request_jobs m JOIN backfill_jobs b ON b.id = m.job_id
        WHERE m.request_id = r.id AND b.request_id IS DISTINCT FROM r.id
    ) j
) p
ORDER BY r.created_at DESC

-- name: cancellable
-- Of the jobs that a request asked for first and nobody has begun: those that it alone waits for, and the others.
SELECT count(*) FILTER (WHERE NOT shared), count(*) FILTER (WHERE shared)
FROM (
    SELECT EXISTS (SELECT FROM request_jobs r WHERE r.job_id = j.id AND r.request_id <> j.request_id) AS shared
    FROM backfill_jobs j
    WHERE j.request_id = CAST(:id AS uuid) AND j.status IN ('deferred', 'queued')
) w

-- name: jobs
-- The jobs of a request, newest change first, with the open letter of those that died.
SELECT j.id, j.symbol, j.interval, lower(j."window") AS start, upper(j."window") AS "end", j.tier, j.status, j.attempts,
       j.max_attempts, j.bars, j.last_error_class, j.last_error, j.not_before, j.updated_at, l.id AS letter
FROM (
    SELECT * FROM backfill_jobs WHERE request_id = CAST(:id AS uuid)
    UNION ALL
    SELECT b.* FROM request_jobs m JOIN backfill_jobs b ON b.id = m.job_id
    WHERE m.request_id = CAST(:id AS uuid) AND b.request_id IS DISTINCT FROM m.request_id
) j
LEFT JOIN dead_letters l ON l.job_id = j.id AND l.state = 'open'
WHERE CAST(:status AS text) IS NULL OR j.status = CAST(:status AS job_status)
ORDER BY j.updated_at DESC, upper(j."window") DESC, j.id
LIMIT :limit
