-- What runbooks look at: who failed lately, what waits, what is missing, who holds whom up. Reads only.

-- name: outcomes
-- Attempts that ended within :minutes, by provider and error; only the newest ones are looked at, by id.
SELECT coalesce(provider, '') AS provider, coalesce(error_class, '') AS error_class, count(*) AS attempts,
       (array_agg(message ORDER BY id DESC) FILTER (WHERE message IS NOT NULL))[1] AS example
FROM job_attempts
WHERE id > (SELECT coalesce(max(id), 0) - 20000 FROM job_attempts)
  AND ended_at > now() - make_interval(mins => CAST(:minutes AS integer))
GROUP BY 1, 2
ORDER BY attempts DESC

-- name: outcomes_of
-- How :provider did in the attempts that asked it and ended within :minutes: by its own first error where it answered
-- nothing, else by the attempt's. One that left no record of whom it asked counts by the providers it names.
SELECT CAST(:provider AS text) AS provider, how AS error_class, count(*) AS attempts,
       (array_agg(example ORDER BY id DESC) FILTER (WHERE example IS NOT NULL))[1] AS example
FROM (
    SELECT a.id,
           CASE WHEN CAST(step->>'answered' AS integer) > 0 THEN coalesce(a.error_class, '')
                ELSE coalesce(said.code, a.error_class, 'no_answer') END AS how,
           CASE WHEN CAST(step->>'answered' AS integer) > 0 THEN a.message
                ELSE coalesce(said.message, a.message) END AS example
    FROM job_attempts a
    LEFT JOIN LATERAL (
        SELECT each AS step FROM jsonb_array_elements(a.route) each WHERE each->>'provider' = CAST(:provider AS text)
    ) asked ON true
    LEFT JOIN LATERAL (
        SELECT key AS code, value AS message FROM jsonb_each_text(step->'errors') LIMIT 1
    ) said ON true
    WHERE a.id > (SELECT coalesce(max(id), 0) - 20000 FROM job_attempts)
      AND a.ended_at > now() - make_interval(mins => CAST(:minutes AS integer))
      AND CASE WHEN a.route IS NULL THEN CAST(:provider AS text) = ANY (string_to_array(a.provider, ','))
               ELSE step->>'answered' IS NOT NULL END
) ended
GROUP BY how
ORDER BY attempts DESC, how

-- name: waiting
-- Jobs per tier: due but deferred, put off until later, queued, running.
SELECT tier,
       count(*) FILTER (WHERE status = 'deferred' AND coalesce(not_before, '-infinity') <= now()) AS due,
       count(*) FILTER (WHERE status = 'deferred' AND not_before > now()) AS put_off,
       count(*) FILTER (WHERE status = 'queued') AS queued,
       count(*) FILTER (WHERE status = 'running') AS running,
       coalesce(extract(epoch FROM now() - min(created_at)), 0) AS oldest_age_s
FROM backfill_jobs
WHERE status IN ('deferred', 'queued', 'running')
GROUP BY tier
ORDER BY tier

-- name: gaps
-- Open gaps per tier and interval, with the one that is open longest.
SELECT i.tier, g.interval, count(*) AS open, extract(epoch FROM now() - min(g.found_at)) AS oldest_age_s,
       (array_agg(s.symbol ORDER BY g.found_at))[1:5] AS symbols
FROM gaps g
JOIN instruments i ON i.id = g.instrument_id
LEFT JOIN symbols s ON s.instrument_id = g.instrument_id AND s.valid_to = 'infinity'
WHERE g.closed_at IS NULL
GROUP BY 1, 2
ORDER BY open DESC

-- name: quarantined
-- Bars that were refused within the last hour.
SELECT provider, reason, count(*) AS bars, count(DISTINCT instrument_id) AS instruments
FROM bar_quarantine
WHERE seen_at > now() - interval '1 hour'
GROUP BY 1, 2
ORDER BY bars DESC

-- name: freshness
-- Per exchange and interval: series, the newest and the oldest moment that one of them reaches to, and the stalest.
SELECT i.mic, c.interval, count(*) AS series, max(c.fresh_until) AS newest, min(c.fresh_until) AS oldest,
       (array_agg(s.symbol ORDER BY c.fresh_until))[1:5] AS stalest
FROM coverage c
JOIN instruments i ON i.id = c.instrument_id
LEFT JOIN symbols s ON s.instrument_id = i.id AND s.valid_to = 'infinity'
WHERE (i.delisted_on IS NULL OR i.delisted_on > current_date) AND isfinite(c.fresh_until)
GROUP BY 1, 2
ORDER BY newest

-- name: blocked
-- Sessions of this database that wait for a lock, and whom they wait for.
SELECT w.pid, extract(epoch FROM now() - w.query_start) AS waits_s, b.pid AS blocker,
       coalesce(b.application_name, '') AS application, coalesce(b.state, '') AS state,
       extract(epoch FROM now() - b.xact_start) AS holds_s, left(coalesce(b.query, ''), 120) AS query
FROM pg_stat_activity w
JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS blocking(pid) ON true
JOIN pg_stat_activity b ON b.pid = blocking.pid
WHERE w.datname = current_database() AND w.wait_event_type = 'Lock'
ORDER BY holds_s DESC NULLS LAST

-- name: last_look
-- When the monitor of the objectives last left a snapshot.
SELECT max(at) FROM slo_snapshots WHERE at > now() - interval '7 days'

-- name: audit
-- Put on record what a person did, and by what means.
INSERT INTO audit_log (actor, action, details) VALUES (:actor, :action, CAST(:details AS jsonb))
