-- How the objectives stand: the census of lateness and of whole sessions, its evidence, and what is kept of it.

-- name: population
-- How many instruments bear a symbol now and still trade, per tier and exchange.
SELECT i.tier, i.mic, count(*) AS series
FROM instruments i
WHERE i.tier IS NOT NULL AND EXISTS (SELECT FROM symbols s WHERE s.instrument_id = i.id AND s.valid_to = 'infinity')
  AND (i.delisted_on IS NULL OR i.delisted_on > CAST(:today AS date))
GROUP BY i.tier, i.mic

-- name: first_added
-- When the first of a tier's instruments was added; null: it has none.
SELECT min(created_at) FROM instruments WHERE tier = CAST(:tier AS tier)

-- name: lock
-- One census at a time, however many beats ask for it: two would count everything twice. False: another one runs.
SELECT pg_try_advisory_xact_lock(hashtext('mdtasks.monitor'))

-- name: lateness
-- The census of a tier and interval over the exchanges that trade now, a row for each that has series: how many were
-- looked at, how many are late, since when the latest of all lags, and the late ones that lag most, with since when.
-- A series counts since its newest data, its listing, its making, its coming into the tier or the end of its halt,
-- whichever is last; one that is not listed on the day of the session, or is halted now, is not looked at.
WITH exchanges AS (
    SELECT * FROM unnest(CAST(:mics AS text[]), CAST(:sessions AS date[]), CAST(:due_from AS timestamptz[]),
                         CAST(:late_before AS timestamptz[])) AS e (mic, session, due_from, late_before)
), halts AS MATERIALIZED (
    SELECT instrument_id, bool_or(upper("window") > :now) AS halted, max(upper("window")) AS until
    FROM calendar_overrides
    WHERE instrument_id IS NOT NULL AND undone_at IS NULL AND lower("window") <= :now
    GROUP BY instrument_id
), series AS MATERIALIZED (
    SELECT i.id, e.mic, e.late_before,
           greatest(c.fresh_until, i.created_at, i.tier_since, h.until,
                    CASE WHEN i.listed_from = e.session THEN e.due_from ELSE CAST(i.listed_from AS timestamptz) END)
               AS since
    FROM exchanges e
    JOIN instruments i ON i.mic = e.mic AND i.tier = CAST(:tier AS tier)
    LEFT JOIN coverage c ON c.instrument_id = i.id AND c.interval = CAST(:interval AS bar_interval)
    LEFT JOIN halts h ON h.instrument_id = i.id
    WHERE coalesce(i.listed_from <= e.session, true) AND coalesce(i.delisted_on > e.session, true)
      AND h.halted IS NOT TRUE
      AND EXISTS (SELECT FROM symbols s WHERE s.instrument_id = i.id AND s.valid_to = 'infinity')
    ORDER BY CASE WHEN CAST(:sample AS integer) IS NULL THEN 0
                  ELSE hashint8(CAST(i.id # CAST(:seed AS integer) AS bigint)) END
    LIMIT CAST(:sample AS integer)
), ranked AS (
    SELECT mic, id, since, row_number() OVER (PARTITION BY mic ORDER BY since, id) AS place
    FROM series WHERE since < late_before
), worst AS (
    SELECT mic, array_agg(id ORDER BY place) AS ids, array_agg(since ORDER BY place) AS sinces
    FROM ranked WHERE place <= :worst GROUP BY mic
)
SELECT s.mic, s.expected, s.violations, s.oldest, coalesce(w.ids, '{}') AS ids, coalesce(w.sinces, '{}') AS sinces
FROM (
    SELECT mic, count(*) AS expected, count(*) FILTER (WHERE since < late_before) AS violations, min(since) AS oldest
    FROM series GROUP BY mic
) s LEFT JOIN worst w USING (mic)

-- name: wholeness
-- The census of a tier and interval over the last session of each exchange: how many series were listed on it, how
-- many are not wholly covered (halts count as covered), and some of those.
WITH exchanges AS (
    SELECT * FROM unnest(CAST(:mics AS text[]), CAST(:sessions AS date[]), CAST(:parts AS tstzmultirange[]))
        AS e (mic, session, parts)
), halts AS MATERIALIZED (
    SELECT instrument_id, range_agg("window") AS halted
    FROM calendar_overrides WHERE instrument_id IS NOT NULL AND undone_at IS NULL GROUP BY instrument_id
), series AS MATERIALIZED (
    SELECT i.id, e.mic,
           coalesce(coalesce(c.covered, '{}') + coalesce(h.halted, '{}') @> e.parts, false) AS whole
    FROM exchanges e
    JOIN instruments i ON i.mic = e.mic AND i.tier = CAST(:tier AS tier)
    LEFT JOIN coverage c ON c.instrument_id = i.id AND c.interval = CAST(:interval AS bar_interval)
    LEFT JOIN halts h ON h.instrument_id = i.id
    WHERE coalesce(i.listed_from <= e.session, true) AND coalesce(i.delisted_on > e.session, true)
      AND EXISTS (SELECT FROM symbols s WHERE s.instrument_id = i.id AND s.valid_to = 'infinity')
)
SELECT (SELECT count(*) FROM series) AS expected, (SELECT count(*) FROM series WHERE NOT whole) AS violations,
       coalesce((SELECT array_agg(id ORDER BY id) FROM (
           SELECT id FROM series WHERE NOT whole ORDER BY id LIMIT :worst
       ) w), '{}') AS ids

-- name: evidence
-- Why these series may be as they are: their newest bar and who gave it, the job that works on them, their open letter.
-- Jobs and letters count that reach past the series' fresh_until, or, where :parts of sessions are given by exchange,
-- into those. A live fetch has no window: its letter is about the moment at which it died.
WITH asked AS MATERIALIZED (
    SELECT u.id, u.place, i.mic, s.symbol, c.fresh_until,
           coalesce(e.parts, tstzmultirange(tstzrange(coalesce(c.fresh_until, '-infinity'), NULL))) AS about
    FROM unnest(CAST(:ids AS integer[])) WITH ORDINALITY AS u (id, place)
    JOIN instruments i ON i.id = u.id
    JOIN LATERAL (
        SELECT symbol FROM symbols WHERE instrument_id = i.id AND valid_to = 'infinity' ORDER BY symbol LIMIT 1
    ) s ON true
    LEFT JOIN coverage c ON c.instrument_id = i.id AND c.interval = CAST(:interval AS bar_interval)
    LEFT JOIN unnest(CAST(:mics AS text[]), CAST(:parts AS tstzmultirange[])) AS e (mic, parts) ON e.mic = i.mic
), open_letters AS MATERIALIZED (
    SELECT DISTINCT ON (a.id) a.id AS instrument_id, l.id, l.job_id, l.provider, l.error_class, l.message, l.died_at
    FROM asked a
    JOIN dead_letters l ON l.symbol = a.symbol
    WHERE l.state = 'open' AND l.interval = CAST(:interval AS bar_interval)
      AND coalesce(l."window", tstzrange(l.died_at, l.died_at, '[]')) && a.about
    ORDER BY a.id, l.died_at DESC
)
SELECT a.id AS instrument_id, a.symbol, a.mic, nullif(a.fresh_until, '-infinity') AS fresh_until,
       b.ts AS newest_bar, b.provider, b.attempt_id,
       j.id AS job_id, j.status AS job_status, j.attempts AS job_attempts, j.max_attempts AS job_max_attempts,
       j.last_error AS job_error,
       l.id AS letter_id, l.job_id AS letter_job_id, l.provider AS letter_provider, l.error_class AS letter_error_class,
       left(l.message, 200) AS letter_message, l.died_at AS letter_died_at
FROM asked a
LEFT JOIN LATERAL (
    -- What is fresh until then has its newest bar before it; the lower bound leaves all but a few partitions out.
    SELECT ts, provider, attempt_id FROM bars
    WHERE instrument_id = a.id AND interval = CAST(:interval AS bar_interval)
      AND ts < a.fresh_until AND ts >= a.fresh_until - interval '31 days'
    ORDER BY ts DESC LIMIT 1
) b ON true
LEFT JOIN LATERAL (
    SELECT id, status, attempts, max_attempts, left(last_error, 200) AS last_error FROM backfill_jobs
    WHERE instrument_id = a.id AND interval = CAST(:interval AS bar_interval)
      AND status IN ('deferred', 'queued', 'running') AND "window" && a.about
    ORDER BY upper("window") DESC, id LIMIT 1
) j ON true
LEFT JOIN open_letters l ON l.instrument_id = a.id
ORDER BY a.place

-- name: last_at
-- When an objective of a series was last looked at; null: never.
SELECT max(at) FROM slo_snapshots
WHERE objective = :objective AND tier = CAST(:tier AS tier) AND interval = CAST(:interval AS bar_interval)

-- name: add
-- Keep one look. The version is that of the calendars as people have changed them.
INSERT INTO slo_snapshots (objective, tier, interval, at, expected, violations, lag_s, session_s, calendar_version,
                           policy_version, worst)
SELECT :objective, CAST(:tier AS tier), CAST(:interval AS bar_interval), :at, :expected, :violations, :lag_s, :session_s,
       (SELECT coalesce(max(greatest(version, undone_version)), 0) FROM calendar_overrides),
       :policy_version, CAST(:worst AS jsonb)
ON CONFLICT (objective, tier, interval, at) DO NOTHING

-- name: newest
-- The newest look at each of these objectives, if it is not older than :since.
SELECT k.objective, k.tier, k.interval, s.at, s.expected, s.violations, s.lag_s, s.worst
FROM unnest(CAST(:objectives AS text[]), CAST(:tiers AS tier[]), CAST(:intervals AS bar_interval[]))
    AS k (objective, tier, interval)
CROSS JOIN LATERAL (
    SELECT at, expected, violations, lag_s, worst FROM slo_snapshots
    WHERE objective = k.objective AND tier = k.tier AND interval = k.interval AND at >= :since
    ORDER BY at DESC LIMIT 1
) s

-- name: used
-- What of a budget is used since :since: seconds of the whole tier late, of seconds looked at.
SELECT coalesce(sum(session_s * violations / greatest(expected, 1)), 0) AS late_s, coalesce(sum(session_s), 0) AS watched_s
FROM slo_snapshots
WHERE objective = :objective AND tier = CAST(:tier AS tier) AND interval = CAST(:interval AS bar_interval)
  AND at >= :since

-- name: lately
-- The same over the last :session_s seconds of trading, however long ago that was (of the last :most looks).
SELECT coalesce(sum(session_s * violations / greatest(expected, 1)), 0) AS late_s, coalesce(sum(session_s), 0) AS watched_s
FROM (
    SELECT session_s, violations, expected, sum(session_s) OVER (ORDER BY at DESC) - session_s AS later_s
    FROM (
        SELECT at, session_s, violations, expected FROM slo_snapshots
        WHERE objective = :objective AND tier = CAST(:tier AS tier) AND interval = CAST(:interval AS bar_interval)
        ORDER BY at DESC LIMIT :most
    ) newest
) counted
WHERE later_s < :session_s

-- name: history
-- How an objective stood since :since, in stretches of :step_s seconds: the newest first.
SELECT date_bin(make_interval(secs => :step_s), at, CAST('2000-01-01 00:00+00' AS timestamptz)) AS from_at,
       count(*) AS looks, round(avg(expected)) AS expected, max(violations) AS most_late,
       coalesce(sum(session_s * violations / greatest(expected, 1)) / nullif(sum(session_s), 0),
                avg(1.0 * violations / greatest(expected, 1))) AS rate,
       max(lag_s) AS lag_s, sum(session_s) AS session_s,
       sum(session_s * violations / greatest(expected, 1)) AS late_s
FROM slo_snapshots
WHERE objective = :objective AND tier = CAST(:tier AS tier) AND interval = CAST(:interval AS bar_interval)
  AND at >= :since
GROUP BY 1 ORDER BY 1 DESC

-- name: prune
-- Forget looks that are older than :before.
DELETE FROM slo_snapshots WHERE at < :before

-- name: thin
-- Of looks older than :before keep the last of each ten minutes, which stands for all of them: their trading time, the
-- share that was late weighted by it, the greatest lag. Its evidence goes. What was thinned before is left alone.
WITH old AS MATERIALIZED (
    SELECT objective, tier, interval, at, expected, violations, lag_s, session_s,
           date_bin('10 minutes', at, CAST('2000-01-01 00:00+00' AS timestamptz)) AS bin
    FROM slo_snapshots WHERE at < :before
), bins AS MATERIALIZED (
    SELECT objective, tier, interval, bin, max(at) AS kept, max(expected) AS expected,
           coalesce(sum(session_s * violations / greatest(expected, 1)) / nullif(sum(session_s), 0),
                    avg(1.0 * violations / greatest(expected, 1))) AS rate,
           max(lag_s) AS lag_s, sum(session_s) AS session_s
    FROM old GROUP BY objective, tier, interval, bin HAVING count(*) > 1
), merged AS (
    UPDATE slo_snapshots s
    SET expected = b.expected, violations = round(b.rate * b.expected), lag_s = b.lag_s, session_s = b.session_s,
        worst = '[]'
    FROM bins b
    WHERE s.objective = b.objective AND s.tier = b.tier AND s.interval = b.interval AND s.at = b.kept
)
DELETE FROM slo_snapshots s
USING old o JOIN bins b USING (objective, tier, interval, bin)
WHERE s.objective = o.objective AND s.tier = o.tier AND s.interval = o.interval AND s.at = o.at AND o.at <> b.kept

-- name: pace
-- Backfills that ended well lately, per tier, among the last :most attempts: how many, and over how many seconds.
WITH newest AS MATERIALIZED (
    SELECT job_id, job_type, outcome, ended_at FROM job_attempts ORDER BY id DESC LIMIT :most
), span AS (
    SELECT least(CAST(:within_s AS double precision),
                 CASE WHEN (SELECT count(*) FROM newest) < :most THEN CAST(:within_s AS double precision)
                      ELSE extract(epoch FROM now() - min(ended_at)) END) AS seconds
    FROM newest
)
SELECT j.tier, count(*) AS done, min(span.seconds) AS seconds
FROM newest n CROSS JOIN span JOIN backfill_jobs j ON j.id = n.job_id
WHERE n.job_type = 'backfill' AND n.outcome = 'done' AND n.ended_at > now() - make_interval(secs => span.seconds)
GROUP BY j.tier

-- name: last_trouble
-- The newest live fetch of late that did not get all it asked for, among the last :most attempts.
SELECT ended_at AS at, outcome, provider, error_class, left(message, 200) AS message
FROM (SELECT * FROM job_attempts ORDER BY id DESC LIMIT :most) a
WHERE job_type = 'bars_fetch' AND (outcome = 'failed' OR message IS NOT NULL)
  AND ended_at > now() - make_interval(secs => :within_s)
ORDER BY id DESC LIMIT 1
