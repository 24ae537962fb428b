-- What the replay buffer has not heard of yet ("write_note" of bars.sql puts it there), and the bars that it is told.
-- As bars.sql, these run on psycopg and are never prepared.

-- name: take
-- Take out all that waits of some series, in the order of its commits. Who takes first holds it until its transaction
-- ends, and the next one waits: so what a series did is told in order, whoever tells.
WITH taken AS (
    DELETE FROM bar_outbox WHERE id IN (
        SELECT id FROM bar_outbox
        WHERE interval = %(interval)s::bar_interval AND instrument_id = ANY(%(instruments)s::integer[])
        ORDER BY id
        FOR UPDATE
    )
    RETURNING id, instrument_id, bars, silent, written_at
)
SELECT instrument_id, bars, silent, written_at FROM taken ORDER BY id

-- name: bars
-- Bars as they stand now.
SELECT b.instrument_id, b.ts, b.open, b.high, b.low, b.close, b.volume, b.status = 'final', b.provider, b.known_at
FROM unnest(%(instruments)s::integer[], %(starts)s::timestamptz[]) AS w (instrument_id, ts)
CROSS JOIN LATERAL (
    SELECT * FROM bars
    WHERE instrument_id = w.instrument_id AND interval = %(interval)s::bar_interval AND ts = w.ts
      AND ts BETWEEN %(first)s::timestamptz AND %(last)s::timestamptz
    OFFSET 0
) b

-- name: newest
-- The newest bars of each series that are not older than :since, oldest first.
SELECT n.instrument_id, b.*
FROM unnest(%(instruments)s::integer[]) AS n (instrument_id)
CROSS JOIN LATERAL (
    SELECT ts, open, high, low, close, volume, status = 'final', provider, known_at FROM bars
    WHERE instrument_id = n.instrument_id AND interval = %(interval)s::bar_interval AND ts >= %(since)s::timestamptz
    ORDER BY ts DESC LIMIT %(most)s
) b
ORDER BY n.instrument_id, b.ts

-- name: waiting
-- The series of which something waits since before a moment, those that wait longest first.
SELECT instrument_id, interval::text
FROM bar_outbox
WHERE written_at < %(before)s
GROUP BY 1, 2
ORDER BY min(id)
LIMIT %(most)s

-- name: stale
-- The series of which something waits since before a moment; their rows go.
WITH gone AS (
    DELETE FROM bar_outbox WHERE id IN (
        SELECT id FROM bar_outbox WHERE written_at < %(before)s ORDER BY id LIMIT %(most)s FOR UPDATE
    )
    RETURNING instrument_id, interval
)
SELECT DISTINCT instrument_id, interval::text FROM gone

-- name: pending
-- How many rows wait, and for how long the oldest has.
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(written_at)), 0)::double precision FROM bar_outbox
