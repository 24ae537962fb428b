-- Silence: who was asked and had no bars, and what is known of a series to weigh it by. As bars.sql, these run on psycopg.

-- name: keep
-- Who was asked and had no bars, a row for each run and provider; a run that has grown is the same run. What the same
-- voice said of it before is kept.
WITH heard AS MATERIALIZED (
    SELECT h.instrument_id, h.starts_at, max(h.ends_at) AS ends_at, bool_and(h.believed) AS believed
    FROM unnest(%(heard)s::integer[], %(heard_from)s::timestamptz[], %(heard_to)s::timestamptz[],
                %(believed)s::boolean[]) AS h (instrument_id, starts_at, ends_at, believed)
    GROUP BY h.instrument_id, h.starts_at
), moment AS MATERIALIZED (
    SELECT clock_timestamp() AS at
), archived AS (
    INSERT INTO silence_revisions (instrument_id, interval, starts_at, provider, ends_at, believed, attempt_id,
                                   answered_at, superseded_at)
    SELECT s.instrument_id, s.interval, s.starts_at, s.provider, s.ends_at, s.believed, s.attempt_id, s.answered_at,
           moment.at
    FROM silences s JOIN heard h ON h.instrument_id = s.instrument_id AND h.starts_at = s.starts_at, moment
    WHERE s.interval = %(interval)s::bar_interval AND s.provider = %(provider)s
      AND (s.believed <> h.believed OR s.ends_at <> h.ends_at)
)
INSERT INTO silences AS s (instrument_id, interval, starts_at, provider, ends_at, believed, attempt_id, answered_at)
SELECT h.instrument_id, %(interval)s::bar_interval, h.starts_at, %(provider)s, h.ends_at, h.believed, %(attempt_id)s,
       moment.at
FROM heard h, moment
ORDER BY h.instrument_id, h.starts_at
ON CONFLICT (instrument_id, interval, starts_at, provider) DO UPDATE
SET ends_at = excluded.ends_at, believed = excluded.believed, attempt_id = excluded.attempt_id,
    answered_at = excluded.answered_at
WHERE s.believed <> excluded.believed OR s.ends_at <> excluded.ends_at

-- name: around
-- What is known of series in a stretch of time each: coverage, silence that was not believed, silence that others than
-- :provider called so (pairs of big-endian times), and the starts of the bars (big-endian times).
SELECT a.instrument_id,
       (SELECT string_agg(timestamptz_send(lower(r)) || timestamptz_send(upper(r)), '' ORDER BY r)
        FROM coverage c, unnest(c.covered * tstzmultirange(tstzrange(a.since, a.until))) AS r
        WHERE c.instrument_id = a.instrument_id AND c.interval = %(interval)s::bar_interval),
       h.doubted, h.seconded,
       (SELECT string_agg(timestamptz_send(ts), '' ORDER BY ts)
        FROM bars b
        WHERE b.instrument_id = a.instrument_id AND b.interval = %(interval)s::bar_interval
          AND b.ts >= a.since AND b.ts < a.until
          AND b.ts >= %(since)s::timestamptz AND b.ts < %(until)s::timestamptz)
FROM unnest(%(instruments)s::integer[], %(sinces)s::timestamptz[], %(untils)s::timestamptz[])
    AS a (instrument_id, since, until)
CROSS JOIN LATERAL (
    SELECT string_agg(timestamptz_send(starts_at) || timestamptz_send(ends_at), '') FILTER (WHERE NOT believed) AS doubted,
           string_agg(timestamptz_send(starts_at) || timestamptz_send(ends_at), '')
               FILTER (WHERE provider <> %(provider)s) AS seconded
    FROM silences s
    WHERE s.instrument_id = a.instrument_id AND s.interval = %(interval)s::bar_interval
      AND s.starts_at < a.until AND s.ends_at > a.since
) h

-- name: accept
-- Somebody takes responsibility: the window's silence counts. The caller keeps other writers of the series out.
WITH moment AS MATERIALIZED (
    SELECT clock_timestamp() AS at
), archived AS (
    INSERT INTO silence_revisions (instrument_id, interval, starts_at, provider, ends_at, believed, attempt_id,
                                   answered_at, superseded_at)
    SELECT instrument_id, interval, starts_at, provider, ends_at, believed, attempt_id, answered_at, moment.at
    FROM silences, moment
    WHERE instrument_id = %(instrument)s AND interval = %(interval)s::bar_interval AND starts_at = %(start)s
      AND provider = %(provider)s
), said AS (
    INSERT INTO silences (instrument_id, interval, starts_at, provider, ends_at, believed, answered_at)
    SELECT %(instrument)s, %(interval)s::bar_interval, %(start)s, %(provider)s, %(end)s, true, at FROM moment
    ON CONFLICT (instrument_id, interval, starts_at, provider) DO UPDATE
    SET ends_at = excluded.ends_at, answered_at = excluded.answered_at
), remembered AS (
    INSERT INTO coverage_changes (instrument_id, interval, starts_at, ends_at, at, covered, uncovered)
    SELECT %(instrument)s, %(interval)s::bar_interval, lower(range_merge(news)), upper(range_merge(news)), at, '{}', news
    FROM (
        SELECT tstzmultirange(tstzrange(%(start)s, %(end)s)) - coalesce((
            SELECT covered FROM coverage
            WHERE instrument_id = %(instrument)s AND interval = %(interval)s::bar_interval
        ), '{}') AS news
    ) n, moment
    WHERE NOT isempty(news)
), noted AS (
    INSERT INTO minute_changes (instrument_id, starts_at, ends_at)
    SELECT %(instrument)s, %(start)s, %(end)s WHERE %(interval)s::bar_interval = '1m'
)
INSERT INTO coverage AS c (instrument_id, interval, covered, fresh_until)
VALUES (%(instrument)s, %(interval)s::bar_interval, tstzmultirange(tstzrange(%(start)s, %(end)s)), %(end)s)
ON CONFLICT (instrument_id, interval) DO UPDATE
SET covered = c.covered + excluded.covered, fresh_until = greatest(c.fresh_until, excluded.fresh_until),
    updated_at = now()

-- name: audit
INSERT INTO audit_log (actor, action, details) VALUES (%(actor)s, %(action)s, %(details)s::jsonb)

-- name: heard
-- What was said of a series in a window, in order of time.
SELECT starts_at, ends_at, provider, believed, answered_at, attempt_id
FROM silences
WHERE instrument_id = %(instrument)s AND interval = %(interval)s::bar_interval
  AND starts_at < %(end)s AND ends_at > %(start)s
ORDER BY starts_at, provider

-- name: heard_as_of
-- The same as it was at an instant: what each voice had said last of a run by then.
SELECT starts_at, ends_at, provider, believed, answered_at, attempt_id
FROM (
    SELECT starts_at, ends_at, provider, believed, answered_at, attempt_id
    FROM silences
    WHERE instrument_id = %(instrument)s AND interval = %(interval)s::bar_interval
      AND starts_at < %(end)s AND ends_at > %(start)s AND answered_at <= %(as_of)s
    UNION ALL
    SELECT starts_at, ends_at, provider, believed, answered_at, attempt_id
    FROM silence_revisions
    WHERE instrument_id = %(instrument)s AND interval = %(interval)s::bar_interval
      AND starts_at < %(end)s AND ends_at > %(start)s AND answered_at <= %(as_of)s AND superseded_at > %(as_of)s
) s
ORDER BY starts_at, provider
