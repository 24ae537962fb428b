-- What a reader must know of series before it reads them. They run on psycopg, as bars.sql does, and for its reason.

-- name: extents
-- Per window the starts of the first and the last bar that is or was there: two looks into each key, no count.
SELECT w.number,
       least((SELECT ts FROM bars
              WHERE instrument_id = w.instrument AND interval = %(interval)s::bar_interval
                AND ts >= w.since AND ts < w.until ORDER BY ts LIMIT 1),
             (SELECT ts FROM bar_revisions
              WHERE instrument_id = w.instrument AND interval = %(interval)s::bar_interval
                AND ts >= w.since AND ts < w.until ORDER BY ts LIMIT 1)),
       greatest((SELECT ts FROM bars
                 WHERE instrument_id = w.instrument AND interval = %(interval)s::bar_interval
                   AND ts >= w.since AND ts < w.until ORDER BY ts DESC LIMIT 1),
                (SELECT ts FROM bar_revisions
                 WHERE instrument_id = w.instrument AND interval = %(interval)s::bar_interval
                   AND ts >= w.since AND ts < w.until ORDER BY ts DESC LIMIT 1))
FROM unnest(%(instruments)s::integer[], %(sinces)s::timestamptz[], %(untils)s::timestamptz[])
    WITH ORDINALITY AS w (instrument, since, until, number)

-- name: states
-- Per window what changes whenever one of its bars does, of the first :most bars or of all: how many there are, how many
-- are final, and the sum of their times. A bar that is replaced is known later than it was; one that is promoted becomes
-- final and keeps its time; no other way leads back.
SELECT w.number, b.bars, b.finals, b.known
FROM unnest(%(instruments)s::integer[], %(sinces)s::timestamptz[], %(untils)s::timestamptz[])
    WITH ORDINALITY AS w (instrument, since, until, number)
CROSS JOIN LATERAL (
    SELECT count(*) AS bars, count(*) FILTER (WHERE status = 'final') AS finals,
           sum((date_part('epoch', known_at) * 1000000)::bigint)::text AS known
    FROM (
        SELECT status, known_at FROM bars
        WHERE instrument_id = w.instrument AND interval = %(interval)s::bar_interval
          AND ts >= w.since AND ts < w.until AND ts >= %(since)s AND ts < %(until)s
        ORDER BY ts LIMIT %(most)s
    ) first
) b

-- name: states_as_of
-- The same of what was known at an instant, final where it was then.
SELECT w.number, b.bars, b.finals, b.known
FROM unnest(%(instruments)s::integer[], %(sinces)s::timestamptz[], %(untils)s::timestamptz[])
    WITH ORDINALITY AS w (instrument, since, until, number)
CROSS JOIN LATERAL (
    SELECT count(*) AS bars, count(*) FILTER (WHERE settled) AS finals,
           sum((date_part('epoch', known_at) * 1000000)::bigint)::text AS known
    FROM (
        SELECT ts, status = 'final' AND coalesce(final_at <= %(as_of)s, true) AS settled, known_at FROM bars
        WHERE instrument_id = w.instrument AND interval = %(interval)s::bar_interval
          AND ts >= w.since AND ts < w.until AND ts >= %(since)s AND ts < %(until)s AND known_at <= %(as_of)s
        UNION ALL
        SELECT ts, status = 'final' AND coalesce(final_at <= %(as_of)s, true), known_at FROM bar_revisions
        WHERE instrument_id = w.instrument AND interval = %(interval)s::bar_interval
          AND ts >= w.since AND ts < w.until AND ts >= %(since)s AND ts < %(until)s
          AND known_at <= %(as_of)s AND superseded_at > %(as_of)s
        ORDER BY ts LIMIT %(most)s
    ) first
) b

-- name: clock
SELECT clock_timestamp()

-- name: settled
-- Whether no write is under way that may still show bars dated before an instant: writes are dated by their statement
-- and seen at their commit. A session that we may not look into counts as one that writes.
SELECT %(as_of)s < clock_timestamp() - make_interval(secs => %(margin_s)s)
   AND NOT EXISTS (
       SELECT FROM pg_stat_activity
       WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
         AND (query = '<insufficient privilege>' OR backend_xid IS NOT NULL AND xact_start <= %(as_of)s)
   )
   AND NOT EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database())
