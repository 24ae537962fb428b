-- Where bars come from: every version of a bar with the attempt, job, request and policy behind it. Reads only.

-- name: versions
-- Every version of one bar, the one that stands first.
SELECT * FROM (
    SELECT ts, open, high, low, close, volume, provider, status, known_at, final_at,
           CAST(NULL AS timestamptz) AS superseded_at, attempt_id
    FROM bars WHERE instrument_id = :instrument AND interval = CAST(:interval AS bar_interval) AND ts = :ts
    UNION ALL
    SELECT ts, open, high, low, close, volume, provider, status, known_at, final_at, superseded_at, attempt_id
    FROM bar_revisions WHERE instrument_id = :instrument AND interval = CAST(:interval AS bar_interval) AND ts = :ts
) v
ORDER BY known_at DESC

-- name: candidates
-- Bars that came for an interval and broke a rule, those seen first first.
SELECT ts, reason, provider, bar, seen_at, attempt_id
FROM bar_quarantine
WHERE instrument_id = :instrument AND interval = CAST(:interval AS bar_interval) AND ts >= :ts AND ts < :until
ORDER BY seen_at, id

-- name: origins
-- The attempts behind bars, each with its job (a live fetch has none; one that is over may be gone), who asked for it,
-- and the policy that it ran under.
SELECT a.id AS attempt_id, a.job_id, a.job_type, a.attempt, a.worker, a.provider AS asked, a.started_at, a.ended_at,
       a.outcome, a.error_class, a.message, a.bars, a.route, a.policy_version,
       p.author AS policy_author, p.reason AS policy_reason, p.created_at AS policy_applied_at,
       j.status AS job_status, j.tier, lower(j."window") AS job_start, upper(j."window") AS job_end,
       CAST(r.id AS text) AS request, r.requested_by, r.created_at AS requested_at
FROM job_attempts a
LEFT JOIN policy_versions p ON p.version = a.policy_version
LEFT JOIN backfill_jobs j ON j.id = a.job_id
LEFT JOIN requests r ON r.id = j.request_id
WHERE a.id = ANY (CAST(:attempts AS bigint[]))
ORDER BY a.id

-- name: ledger_between
-- Gaps of a series that reach into a window and were found or closed after :since and until :until, as they stood then.
SELECT g.id, lower(w."window") AS start, upper(w."window") AS "end", w.missing, g.found_at, g.found_by, c.closed_at,
       CASE WHEN c.closed_at IS NOT NULL THEN g.outcome END AS outcome
FROM gaps g
LEFT JOIN LATERAL (
    SELECT "window", missing FROM gap_revisions r
    WHERE r.gap_id = g.id AND r.superseded_at > :until
    ORDER BY r.superseded_at LIMIT 1
) r ON true
CROSS JOIN LATERAL (SELECT coalesce(r."window", g."window") AS "window", coalesce(r.missing, g.missing) AS missing) w
CROSS JOIN LATERAL (SELECT CASE WHEN g.closed_at <= :until THEN g.closed_at END AS closed_at) c
WHERE g.instrument_id = :instrument AND g.interval = CAST(:interval AS bar_interval)
  AND w."window" && tstzrange(:start, :end)
  AND (g.found_at > :since AND g.found_at <= :until OR c.closed_at > :since)
ORDER BY g.id

-- name: silences_between
-- What each voice had said last by :until of runs without bars that reach into a window, where it said so after :since.
SELECT starts_at AS start, ends_at AS "end", provider, believed, answered_at, attempt_id
FROM (
    SELECT starts_at, ends_at, provider, believed, answered_at, attempt_id
    FROM silences
    WHERE instrument_id = :instrument AND interval = CAST(:interval AS bar_interval)
      AND starts_at < :end AND ends_at > :start AND answered_at > :since AND answered_at <= :until
    UNION ALL
    SELECT starts_at, ends_at, provider, believed, answered_at, attempt_id
    FROM silence_revisions
    WHERE instrument_id = :instrument AND interval = CAST(:interval AS bar_interval)
      AND starts_at < :end AND ends_at > :start AND answered_at > :since AND answered_at <= :until
      AND superseded_at > :until
) s
ORDER BY starts_at, provider

-- name: at_one_moment
-- All that the transaction reads is of one moment.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY
