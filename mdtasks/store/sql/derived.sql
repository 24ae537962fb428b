-- Bars made of minutes: what is still to be made, and making it. As bars.sql, these run on psycopg.

-- name: one_at_a_time
-- Two that make the same bar at once might leave the older minutes' one. Held until the transaction ends.
SELECT pg_try_advisory_xact_lock(hashtext('mdtasks.derived'))

-- name: next
-- The oldest changes of minutes that are still to be followed, of about one month, with whose they are.
WITH head AS (
    SELECT id, starts_at FROM minute_changes ORDER BY id LIMIT 1
)
SELECT c.id, c.instrument_id, i.mic, i.tier, c.starts_at, c.ends_at
FROM minute_changes c JOIN head h ON c.id = h.id
    OR (c.starts_at >= h.starts_at - interval '15 days' AND c.ends_at <= h.starts_at + interval '16 days')
JOIN instruments i ON i.id = c.instrument_id
ORDER BY c.id
LIMIT %(most)s

-- name: take
-- These are followed now; answers those that nobody has taken meanwhile.
DELETE FROM minute_changes WHERE id = ANY (%(ids)s::bigint[]) RETURNING id

-- name: forget_unowned
-- Changes of instruments that are no more.
DELETE FROM minute_changes c WHERE NOT EXISTS (SELECT FROM instruments i WHERE i.id = c.instrument_id)

-- name: waiting
-- How many changes are still to be followed, and since when the oldest of them waits.
SELECT count(*), min(noted_at) FROM minute_changes

-- name: wanted_create
-- The bars to be made; one table per connection, emptied by each commit, here for the next interval of one transaction.
CREATE TEMP TABLE IF NOT EXISTS stage_derived (
    instrument_id integer NOT NULL,
    ts timestamptz NOT NULL,
    since_at timestamptz NOT NULL, -- end of the expected interval before
    parts tstzmultirange NOT NULL, -- the minutes that make it
    whole boolean NOT NULL -- each of them is answered for
) ON COMMIT DELETE ROWS;
DELETE FROM stage_derived

-- name: wanted
-- Of each series and interval that is to be made the minutes, less those in which the instrument was halted, and whether
-- all of them are answered for. Intervals are numbered; those without any minute left are none.
INSERT INTO stage_derived (instrument_id, ts, since_at, parts, whole)
WITH slots AS MATERIALIZED (
    SELECT s.number, s.ts, s.since_at, p.parts
    FROM unnest(%(numbers)s::integer[], %(ts)s::timestamptz[], %(since)s::timestamptz[]) AS s (number, ts, since_at)
    JOIN (
        SELECT number, range_agg(tstzrange(starts_at, ends_at)) AS parts
        FROM unnest(%(owners)s::integer[], %(parts_from)s::timestamptz[], %(parts_to)s::timestamptz[])
            AS p (number, starts_at, ends_at)
        GROUP BY number
    ) p USING (number)
), halted AS MATERIALIZED (
    SELECT instrument_id, range_agg(tstzrange(starts_at, ends_at)) AS spans
    FROM unnest(%(halted)s::integer[], %(halted_from)s::timestamptz[], %(halted_to)s::timestamptz[])
        AS h (instrument_id, starts_at, ends_at)
    GROUP BY instrument_id
), traded AS MATERIALIZED (
    SELECT w.instrument_id, s.ts, s.since_at, s.parts - coalesce(h.spans, '{}') AS parts
    FROM unnest(%(instruments)s::integer[], %(wanted)s::integer[]) AS w (instrument_id, number)
    JOIN slots s USING (number) LEFT JOIN halted h USING (instrument_id)
)
SELECT t.instrument_id, t.ts, t.since_at, t.parts, coalesce(c.covered @> t.parts, false)
FROM traded t LEFT JOIN coverage c ON c.instrument_id = t.instrument_id AND c.interval = '1m'
WHERE NOT isempty(t.parts)

-- name: make
-- Each wanted bar out of its minutes, on its way in as any other (bars.sql, write). Final when all its minutes are answered
-- for and those with a bar are final. Its attempt is the newest that brought a minute of it.
-- The outer bounds are constants, so that only partitions are planned that minutes may lie in.
INSERT INTO stage_bars (instrument_id, ts, open, high, low, close, volume, final, attempt_id)
SELECT w.instrument_id, w.ts, m.*
FROM stage_derived w CROSS JOIN LATERAL (
    SELECT (array_agg(open ORDER BY ts))[1], max(high), min(low), (array_agg(close ORDER BY ts))[count(*)],
           sum(volume ORDER BY ts), w.whole AND bool_and(status = 'final'), max(attempt_id)
    FROM bars
    WHERE instrument_id = w.instrument_id AND interval = '1m' AND w.parts @> ts
      AND ts >= lower(w.parts) AND ts < upper(w.parts)
      AND ts >= %(first)s::timestamptz AND ts < %(last)s::timestamptz
    HAVING count(*) > 0
) m
ORDER BY w.instrument_id, w.ts

-- name: outcome
-- What the wanted intervals became: whole (answered for from the end of the one before on), made (a bar, and whether it
-- is final), or open again though they had been answered for. What a vendor has a bar of stays answered for.
SELECT w.instrument_id, w.since_at, w.ts, w.whole, s.final
FROM stage_derived w
LEFT JOIN stage_bars s ON s.instrument_id = w.instrument_id AND s.ts = w.ts
LEFT JOIN coverage c ON c.instrument_id = w.instrument_id AND c.interval = %(interval)s::bar_interval
WHERE w.whole OR s.ts IS NOT NULL
   OR (c.covered && tstzrange(w.ts, w.ts + %(step)s::interval)
       AND NOT EXISTS (
           SELECT FROM bars b
           WHERE b.instrument_id = w.instrument_id AND b.interval = %(interval)s::bar_interval AND b.ts = w.ts
             AND b.provider <> 'derived'))
ORDER BY 1, 3

-- name: note
-- Note these intervals as still to be made, a row per instrument, where that is worth while: all minutes of one are
-- answered for, or some are and it has no bar yet. What is noted already and waits is not noted again.
INSERT INTO minute_changes (instrument_id, starts_at, ends_at)
SELECT w.instrument_id, min(lower(w.parts)), max(upper(w.parts))
FROM stage_derived w LEFT JOIN coverage c ON c.instrument_id = w.instrument_id AND c.interval = '1m'
WHERE (w.whole OR (c.covered && w.parts AND NOT EXISTS (
    SELECT FROM bars b
    WHERE b.instrument_id = w.instrument_id AND b.interval = %(interval)s::bar_interval AND b.ts = w.ts)))
  AND NOT EXISTS (
    SELECT FROM minute_changes m
    WHERE m.instrument_id = w.instrument_id AND m.starts_at <= lower(w.parts) AND m.ends_at >= upper(w.parts))
GROUP BY w.instrument_id
