-- Gaps: what is missing of a tier, the ledger, and the jobs that work on it. They run on psycopg.

-- name: lock
-- One look at a time: two would both find the same gap new.
SELECT pg_advisory_xact_lock(hashtext('mdtasks.gaps'))

-- name: look
-- What two statements below begin with: the time that exchanges are expected to trade, and instruments were halted in.
WITH expected AS MATERIALIZED (
    SELECT mic, range_agg(tstzrange(starts_at, ends_at)) AS parts
    FROM unnest(%(mics)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS e (mic, starts_at, ends_at)
    GROUP BY mic
), halted AS MATERIALIZED (
    SELECT instrument_id, range_agg(tstzrange(starts_at, ends_at)) AS spans
    FROM unnest(%(halted)s::integer[], %(halted_from)s::timestamptz[], %(halted_to)s::timestamptz[])
        AS h (instrument_id, starts_at, ends_at)
    GROUP BY instrument_id
)

-- name: missing
-- What is missing now of every series of a tier, in one statement: the time in which its exchange is expected to trade,
-- within the listing's life, that is neither covered nor halted. Per series, as pairs of big-endian times: all of it, what
-- of it jobs are to fetch, and what of it nobody works on. A job that failed works on it too: it waits for people.
SELECT m.id, m.symbol, m.mic, m.kind,
       (SELECT string_agg(timestamptz_send(lower(r)) || timestamptz_send(upper(r)), '' ORDER BY r)
        FROM unnest(m.missing) AS r),
       (SELECT string_agg(timestamptz_send(lower(r)) || timestamptz_send(upper(r)), '' ORDER BY r)
        FROM unnest(m.missing * coalesce(b.active, '{}')) AS r),
       (SELECT string_agg(timestamptz_send(lower(r)) || timestamptz_send(upper(r)), '' ORDER BY r)
        FROM unnest(m.missing - coalesce(b.spans, '{}')) AS r)
FROM (
    SELECT i.id, s.symbol, i.mic, i.kind,
           e.parts * tstzmultirange(tstzrange(i.listed_from::timestamp AT TIME ZONE 'UTC',
                                              i.delisted_on::timestamp AT TIME ZONE 'UTC'))
               - coalesce(c.covered, '{}') - coalesce(h.spans, '{}') AS missing
    FROM instruments i
    JOIN symbols s ON s.instrument_id = i.id AND s.valid_to = 'infinity'
    JOIN expected e ON e.mic = i.mic
    LEFT JOIN coverage c ON c.instrument_id = i.id AND c.interval = %(interval)s::bar_interval
    LEFT JOIN halted h ON h.instrument_id = i.id
    WHERE i.tier = %(tier)s::tier
      AND (%(instruments)s::integer[] IS NULL OR i.id = ANY (%(instruments)s::integer[]))
) m
LEFT JOIN LATERAL (
    SELECT range_agg(j."window") AS spans, range_agg(j."window") FILTER (WHERE j.status <> 'failed') AS active
    FROM backfill_jobs j
    WHERE j.instrument_id = m.id AND j.interval = %(interval)s::bar_interval
      AND (j.status IN ('deferred', 'queued', 'running') OR (j.status = 'failed' AND j.provider_hint IS NULL))
) b ON true
WHERE NOT isempty(m.missing)

-- name: standing
-- The open gaps of a tier's series.
SELECT g.instrument_id, g.id, lower(g."window"), upper(g."window"), i.mic
FROM gaps g JOIN instruments i ON i.id = g.instrument_id
WHERE g.closed_at IS NULL AND g.interval = %(interval)s::bar_interval AND i.tier = %(tier)s::tier
  AND (%(instruments)s::integer[] IS NULL OR g.instrument_id = ANY (%(instruments)s::integer[]))
ORDER BY g.instrument_id, g.id

-- name: add
INSERT INTO gaps (instrument_id, interval, "window", missing, found_by, found_at)
SELECT n.instrument_id, %(interval)s::bar_interval, tstzrange(n.starts_at, n.ends_at), n.missing, %(found_by)s,
       clock_timestamp()
FROM unnest(%(instruments)s::integer[], %(starts)s::timestamptz[], %(ends)s::timestamptz[], %(missing)s::integer[])
    AS n (instrument_id, starts_at, ends_at, missing)
ORDER BY n.instrument_id, n.starts_at

-- name: grow
-- Gaps that are larger now; what they were is kept.
WITH grown AS MATERIALIZED (
    SELECT * FROM unnest(%(ids)s::bigint[], %(starts)s::timestamptz[], %(ends)s::timestamptz[], %(missing)s::integer[])
        AS n (id, starts_at, ends_at, missing)
), archived AS (
    INSERT INTO gap_revisions (gap_id, superseded_at, "window", missing)
    SELECT g.id, clock_timestamp(), g."window", g.missing FROM gaps g JOIN grown n USING (id) WHERE g.closed_at IS NULL
)
UPDATE gaps g SET "window" = tstzrange(n.starts_at, n.ends_at), missing = greatest(g.missing, n.missing)
FROM grown n
WHERE g.id = n.id AND g.closed_at IS NULL

-- name: close
-- Close gaps that are missing no longer. Answered for: repaired, or accepted where a person took it on them since it was
-- found. Not covered: nobody expects it any more (a closed day, a halt, a delisting, or it is too old to be looked for).
UPDATE gaps g
SET closed_at = clock_timestamp(),
    outcome = CASE
        WHEN c.covered IS NULL OR NOT c.covered && g."window" THEN 'withdrawn'
        WHEN EXISTS (
            SELECT FROM silences s
            WHERE s.instrument_id = g.instrument_id AND s.interval = g.interval AND s.provider LIKE 'person:%%'
              AND s.starts_at < upper(g."window") AND s.ends_at > lower(g."window") AND s.answered_at >= g.found_at
        ) THEN 'accepted'
        ELSE 'repaired'
    END
FROM gaps o LEFT JOIN coverage c ON c.instrument_id = o.instrument_id AND c.interval = o.interval
WHERE o.id = g.id AND g.id = ANY (%(ids)s::bigint[]) AND g.closed_at IS NULL
RETURNING g.instrument_id, g.outcome, extract(epoch FROM g.closed_at - g.found_at)::double precision

-- name: withdraw
-- Open gaps of series that nobody keeps complete any more: the instrument has another tier, or bears no symbol.
UPDATE gaps g SET closed_at = clock_timestamp(), outcome = 'withdrawn'
FROM instruments i
WHERE i.id = g.instrument_id AND g.closed_at IS NULL AND i.tier = %(tier)s::tier
  AND (g.interval <> ALL (%(kept)s::bar_interval[])
       OR NOT EXISTS (SELECT FROM symbols s WHERE s.instrument_id = i.id AND s.valid_to = 'infinity'))

-- name: failed_reach
-- From when to when the failed jobs of a tier reach that were asked of no provider in particular, by exchange.
SELECT i.mic, min(lower(j."window")), max(upper(j."window"))
FROM backfill_jobs j JOIN instruments i ON i.id = j.instrument_id
WHERE j.status = 'failed' AND j.provider_hint IS NULL AND j.interval = %(interval)s::bar_interval AND i.tier = %(tier)s::tier
  AND (%(instruments)s::integer[] IS NULL OR i.id = ANY (%(instruments)s::integer[]))
GROUP BY i.mic

-- name: answered_failed
-- Those of them of which nothing is missing any more. Only what was answered in since, or had a gap closed, is compared.
SELECT j.id
FROM backfill_jobs j
JOIN instruments i ON i.id = j.instrument_id
JOIN expected e ON e.mic = i.mic
LEFT JOIN coverage c ON c.instrument_id = i.id AND c.interval = j.interval
LEFT JOIN halted h ON h.instrument_id = i.id
WHERE j.status = 'failed' AND j.provider_hint IS NULL AND j.interval = %(interval)s::bar_interval AND i.tier = %(tier)s::tier
  AND (%(instruments)s::integer[] IS NULL OR i.id = ANY (%(instruments)s::integer[]))
  AND (c.covered && j."window" OR i.id = ANY (%(closed)s::integer[]))
  AND isempty(e.parts * tstzmultirange(j."window" * tstzrange(i.listed_from::timestamp AT TIME ZONE 'UTC',
                                                              i.delisted_on::timestamp AT TIME ZONE 'UTC'))
              - coalesce(c.covered, '{}') - coalesce(h.spans, '{}'))

-- name: resolve
-- Failed jobs of which nothing is missing any more: given up, their letters resolved.
WITH over AS (
    UPDATE backfill_jobs SET status = 'cancelled', updated_at = now()
    WHERE id = ANY (%(jobs)s::text[]) AND status = 'failed'
    RETURNING id
)
UPDATE dead_letters l SET state = 'resolved', requeued_by = %(actor)s, updated_at = now()
FROM over WHERE l.job_id = over.id AND l.state = 'open'

-- name: revivable
-- Open letters of a tier's jobs that died of an outage which is over: their provider (whoever, where none was asked) has
-- answered somebody since. Each job is given three lives; then it waits for people.
WITH recent AS MATERIALIZED (
    SELECT unnest(string_to_array(provider, ',')) AS provider, ended_at
    FROM job_attempts
    WHERE id > (SELECT coalesce(max(id), 0) - 20000 FROM job_attempts) AND outcome = 'done'
), answered AS MATERIALIZED (
    SELECT provider, max(ended_at) AS at FROM recent GROUP BY ROLLUP (provider)
)
SELECT l.id
FROM backfill_jobs j
JOIN dead_letters l ON l.job_id = j.id AND l.state = 'open'
JOIN answered a ON a.provider IS NOT DISTINCT FROM l.provider AND a.at > j.updated_at
WHERE j.status = 'failed' AND j.tier = %(tier)s::tier AND j.provider_hint IS NULL
  AND j.last_error_class = ANY (%(outages)s::text[])
  AND (SELECT count(*) FROM dead_letters e WHERE e.job_id = j.id) < 3
ORDER BY upper(j."window") DESC
LIMIT 20000

-- name: history
-- The ledger of a series where it reaches into a window, newest first, with a job of each gap: of an open one a job that
-- works on it, else one that has died; else the newest.
SELECT g.id, lower(g."window"), upper(g."window"), g.missing, g.found_at, g.found_by, g.closed_at, g.outcome,
       j.id, j.status, j.attempts, j.max_attempts, j.last_error, j.last_error_class, j.not_before, l.id
FROM gaps g
LEFT JOIN LATERAL (
    SELECT * FROM backfill_jobs j
    WHERE j.instrument_id = g.instrument_id AND j.interval = g.interval AND j."window" && g."window"
      AND (g.closed_at IS NULL OR j.created_at <= g.closed_at)
      AND (j.status IN ('deferred', 'queued', 'running', 'failed') OR j.updated_at >= g.found_at)
    ORDER BY g.closed_at IS NULL AND j.status IN ('deferred', 'queued', 'running') DESC,
             g.closed_at IS NULL AND j.status = 'failed' DESC, j.updated_at DESC
    LIMIT 1
) j ON true
LEFT JOIN dead_letters l ON l.job_id = j.id AND l.state = 'open'
WHERE g.instrument_id = %(instrument)s AND g.interval = %(interval)s::bar_interval
  AND g."window" && tstzrange(%(start)s, %(end)s)
ORDER BY g.closed_at IS NULL DESC, g.id DESC
LIMIT %(limit)s

-- name: history_as_of
-- The ledger as it was at an instant, in the same order: gaps as large as they were, open where they were. Jobs are told
-- of as they stand, and so of the present only.
SELECT g.id, lower(w."window"), upper(w."window"), w.missing, g.found_at, g.found_by, c.closed_at,
       CASE WHEN c.closed_at IS NOT NULL THEN g.outcome END,
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM gaps g
LEFT JOIN LATERAL (
    SELECT "window", missing FROM gap_revisions r
    WHERE r.gap_id = g.id AND r.superseded_at > %(as_of)s
    ORDER BY r.superseded_at LIMIT 1
) r ON true
CROSS JOIN LATERAL (SELECT coalesce(r."window", g."window") AS "window", coalesce(r.missing, g.missing) AS missing) w
CROSS JOIN LATERAL (SELECT CASE WHEN g.closed_at <= %(as_of)s THEN g.closed_at END AS closed_at) c
WHERE g.instrument_id = %(instrument)s AND g.interval = %(interval)s::bar_interval AND g.found_at <= %(as_of)s
  AND w."window" && tstzrange(%(start)s, %(end)s)
ORDER BY c.closed_at IS NULL DESC, g.id DESC
LIMIT %(limit)s

-- name: open_count
-- Open gaps by tier and interval.
SELECT i.tier, g.interval, count(*)
FROM gaps g JOIN instruments i ON i.id = g.instrument_id
WHERE g.closed_at IS NULL
GROUP BY i.tier, g.interval
