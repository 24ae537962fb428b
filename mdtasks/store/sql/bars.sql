-- Bars, their revisions, coverage and quarantine. These run on psycopg beside COPY and are never prepared, because their
-- plans must know the dates to leave out partitions: so parameters are written %(name)s.

-- name: stage_create
-- Bars on their way in; one table per connection, emptied by each commit, here for a second batch of one transaction.
CREATE TEMP TABLE IF NOT EXISTS stage_bars (
    instrument_id integer NOT NULL,
    ts timestamptz NOT NULL,
    open double precision NOT NULL,
    high double precision NOT NULL,
    low double precision NOT NULL,
    close double precision NOT NULL,
    volume double precision NOT NULL,
    final boolean NOT NULL,
    attempt_id bigint -- of bars that are made here of others: who brought the newest of those; null: this write's own
) ON COMMIT DELETE ROWS;
DELETE FROM stage_bars

-- name: stage_copy
-- The batch, in binary.
COPY stage_bars (instrument_id, ts, open, high, low, close, volume, final) FROM STDIN (FORMAT binary)

-- name: lock_some
-- Writers of the same instrument one after the other, in the order of ids, so that none judges what another is about to
-- change and none waits in a circle; the shared lock keeps out a writer of very many, who takes it alone.
WITH gate AS MATERIALIZED (
    SELECT pg_advisory_xact_lock_shared(hashtextextended('mdtasks.bars.' || %(interval)s, 0))
)
SELECT count(pg_advisory_xact_lock(hashtext('mdtasks.bars.' || %(interval)s), i.id))
FROM gate, unnest(%(instruments)s::integer[]) AS i (id)

-- name: lock_all
-- A writer of very many instruments alone: a lock for each would fill the server's lock table.
SELECT pg_advisory_xact_lock(hashtextextended('mdtasks.bars.' || %(interval)s, 0))

-- name: write
-- Judge each staged bar against the one we have, archive what is replaced, write what is new or better, extend coverage.
-- Answers how many bars were inserted, revised, promoted, unchanged. An identical second write touches no row.
-- It is this, "write_note" where somebody is to hear of it, and "write_counts".
-- A vendor's bar takes the place of one derived from minutes, and never the other way round. A derived one stands anew
-- with its minutes, also as provisional again. Minutes that changed are noted for what is derived from them.
WITH spans AS (
    SELECT * FROM unnest(%(instruments)s::integer[], %(firsts)s::timestamptz[], %(lasts)s::timestamptz[])
        AS s (instrument_id, first_ts, last_ts)
), present AS (
    -- OFFSET 0 keeps this one range scan per instrument: joined freely, the planner may read a month of everybody's
    -- bars. The outer bounds are constants, so that it plans only the partitions the batch lies in.
    SELECT b.*
    FROM spans s CROSS JOIN LATERAL (
        SELECT instrument_id, ts, open, high, low, close, volume, provider, status, attempt_id, known_at, final_at
        FROM bars
        WHERE instrument_id = s.instrument_id AND interval = %(interval)s::bar_interval
          AND ts BETWEEN s.first_ts AND s.last_ts
          AND ts BETWEEN %(first)s::timestamptz AND %(last)s::timestamptz
        OFFSET 0
    ) b
), judged AS MATERIALIZED (
    SELECT n.instrument_id, n.ts, n.open, n.high, n.low, n.close, n.volume, n.final,
           coalesce(n.attempt_id, %(attempt_id)s::bigint) AS attempt_id,
           o.open AS old_open, o.high AS old_high, o.low AS old_low, o.close AS old_close, o.volume AS old_volume, o.provider AS old_provider, o.status AS old_status,
           o.attempt_id AS old_attempt_id, o.known_at AS old_known_at, o.final_at AS old_final_at,
           CASE
               WHEN o.ts IS NULL THEN 'inserted'
               WHEN %(provider)s::text = 'derived' AND o.provider <> 'derived' THEN 'unchanged'
               WHEN o.status = 'final' AND NOT n.final AND %(provider)s::text <> 'derived' THEN 'unchanged'
               WHEN %(provider)s::text <> 'derived' AND o.provider = 'derived' THEN 'revised'
               WHEN n.open <> o.open OR n.high <> o.high OR n.low <> o.low OR n.close <> o.close
                    OR n.volume <> o.volume THEN 'revised'
               WHEN o.status = 'provisional' AND n.final THEN 'promoted'
               WHEN o.status = 'final' AND NOT n.final THEN 'revised' -- derived: the same values, but no longer sure
               ELSE 'unchanged'
           END AS fate
    FROM stage_bars n LEFT JOIN present o ON o.instrument_id = n.instrument_id AND o.ts = n.ts
), moment AS MATERIALIZED (
    -- One instant for the whole write, later than what it replaces even when the server's clock was set back; and
    -- whether it met any bar.
    SELECT greatest(clock_timestamp(), max(old_known_at) FILTER (WHERE fate IN ('revised', 'promoted'))
                                            + interval '1 microsecond') AS at,
           bool_or(old_status IS NOT NULL) AS met
    FROM judged
), archived AS (
    INSERT INTO bar_revisions (instrument_id, interval, ts, open, high, low, close, volume, provider, status,
                               attempt_id, known_at, final_at, superseded_at)
    SELECT instrument_id, %(interval)s::bar_interval, ts, old_open, old_high, old_low, old_close, old_volume,
           old_provider, old_status, old_attempt_id, old_known_at, old_final_at, moment.at
    FROM judged, moment
    WHERE fate = 'revised'
), written AS (
    INSERT INTO bars AS b (instrument_id, interval, ts, open, high, low, close, volume, provider, status,
                           attempt_id, known_at)
    SELECT instrument_id, %(interval)s::bar_interval, ts, open, high, low, close, volume, %(provider)s,
           CASE WHEN final THEN 'final' ELSE 'provisional' END::bar_status, attempt_id, moment.at
    FROM judged, moment
    WHERE fate = 'inserted'
), replaced AS (
    -- The conflict is certain here; it finds each row through the key without planning every partition for an UPDATE.
    INSERT INTO bars AS b (instrument_id, interval, ts, open, high, low, close, volume, provider, status,
                           attempt_id, known_at, final_at)
    SELECT instrument_id, %(interval)s::bar_interval, ts, open, high, low, close, volume,
           CASE fate WHEN 'promoted' THEN old_provider ELSE %(provider)s END,
           CASE WHEN final THEN 'final' ELSE 'provisional' END::bar_status,
           CASE fate WHEN 'promoted' THEN old_attempt_id ELSE attempt_id END,
           CASE fate WHEN 'promoted' THEN old_known_at ELSE moment.at END,
           CASE fate WHEN 'promoted' THEN moment.at END
    FROM judged, moment
    WHERE fate IN ('revised', 'promoted')
    ON CONFLICT (instrument_id, interval, ts) DO UPDATE
    SET open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
        volume = excluded.volume, provider = excluded.provider, status = excluded.status,
        attempt_id = excluded.attempt_id, known_at = excluded.known_at, final_at = excluded.final_at
), told AS (
    SELECT instrument_id, range_agg(tstzrange(since, until)) FILTER (WHERE what = 'covered') AS covered,
           range_agg(tstzrange(since, until)) FILTER (WHERE what = 'retracted') AS retracted,
           range_agg(tstzrange(since, until)) FILTER (WHERE what = 'solid') AS solid
    FROM unnest(%(told)s::integer[], %(told_from)s::timestamptz[], %(told_to)s::timestamptz[], %(told_what)s::text[])
        AS t (instrument_id, since, until, what)
    GROUP BY instrument_id
), reached AS MATERIALIZED (
    -- Per series what is answered for now, what is doubted, the time of final bars, and what was answered for until now.
    SELECT f.instrument_id, f.fresh_until, coalesce(t.covered, '{}') AS covered, coalesce(t.retracted, '{}') AS retracted,
           coalesce(t.solid, '{}') AS solid, coalesce(k.covered, '{}') AS held, k.fresh_until AS held_until
    FROM unnest(%(reached)s::integer[], %(fresh_until)s::timestamptz[]) AS f (instrument_id, fresh_until)
    LEFT JOIN told t USING (instrument_id)
    LEFT JOIN coverage k ON k.instrument_id = f.instrument_id AND k.interval = %(interval)s::bar_interval
), extended AS (
    INSERT INTO coverage AS c (instrument_id, interval, covered, fresh_until, updated_at)
    SELECT r.instrument_id, %(interval)s::bar_interval, r.covered, r.fresh_until, moment.at
    FROM reached r CROSS JOIN moment
    -- Told by a look beforehand: a DO UPDATE that is called off by its WHERE still locks and so writes the row.
    WHERE (r.held @> r.covered AND NOT r.held && r.retracted AND r.held_until >= r.fresh_until) IS NOT TRUE
    ORDER BY r.instrument_id
    ON CONFLICT (instrument_id, interval) DO UPDATE
    SET covered = c.covered - (SELECT r.retracted FROM reached r WHERE r.instrument_id = c.instrument_id)
                  + excluded.covered,
        fresh_until = greatest(c.fresh_until, excluded.fresh_until), updated_at = excluded.updated_at
    RETURNING instrument_id
), moved AS (
    -- Bars that became final in time that was answered for before; and those that did not by this write, in time that is
    -- answered for only now. A write of new bars into new time does not look.
    SELECT instrument_id, range_agg(slot) FILTER (WHERE turned) AS late, range_agg(slot) FILTER (WHERE NOT turned) AS known
    FROM (
        SELECT r.instrument_id, r.held, r.covered, tstzrange(j.ts, j.ts + %(step)s::interval) AS slot,
               j.fate <> 'unchanged' AND j.old_status IS DISTINCT FROM 'final' AS turned
        FROM judged j JOIN (
            SELECT *, held && solid AS touched, NOT held @> covered AS opened FROM reached
        ) r USING (instrument_id)
        WHERE ((SELECT met FROM moment) OR EXISTS (SELECT FROM reached WHERE held && solid))
          AND j.final AND CASE WHEN j.fate <> 'unchanged' AND j.old_status IS DISTINCT FROM 'final' THEN r.touched
                                ELSE r.opened END
    ) m
    WHERE CASE WHEN turned THEN held && slot ELSE covered - held && slot END
    GROUP BY instrument_id
), remembered AS (
    -- What coverage was before, where bars alone would tell of it otherwise: a bar that becomes final tells that nobody
    -- had answered for its time until then. So these are silence, nights, what is doubted now, and late bars.
    INSERT INTO coverage_changes (instrument_id, interval, starts_at, ends_at, at, covered, uncovered)
    SELECT w.instrument_id, %(interval)s::bar_interval, lower(range_merge(w.covered + w.uncovered)),
           upper(range_merge(w.covered + w.uncovered)), moment.at, w.covered, w.uncovered
    FROM (
        SELECT r.instrument_id, r.held * r.retracted - r.covered + r.held * coalesce(m.late, '{}') AS covered,
               r.covered - r.held - r.solid + (r.covered - r.held) * coalesce(m.known, '{}') AS uncovered
        FROM reached r LEFT JOIN moved m USING (instrument_id)
    ) w CROSS JOIN moment
    WHERE NOT isempty(w.covered) OR NOT isempty(w.uncovered)
), minutes_changed AS (
    SELECT instrument_id, min(ts) AS first_at, max(ts) + interval '1 minute' AS last_at
    FROM judged
    WHERE fate <> 'unchanged'
    GROUP BY instrument_id
    UNION ALL
    SELECT instrument_id, lower(range_merge(covered + retracted)), upper(range_merge(covered + retracted))
    FROM extended JOIN reached USING (instrument_id)
    WHERE NOT isempty(covered + retracted)
), minutes_noted AS (
    INSERT INTO minute_changes (instrument_id, starts_at, ends_at)
    SELECT instrument_id, min(first_at), max(last_at)
    FROM minutes_changed
    WHERE %(interval)s::bar_interval = '1m'
    GROUP BY instrument_id
)

-- name: write_note
-- Goes on from "write": what of it the replay buffer is to hear of, a row per series (store/outbox.py). Bars that the
-- buffer has no place for are left out: those before :noted_since, and those older than the newest :most of the series.
-- That is counted only where the clock cannot tell: a bar less than :most intervals behind is among them for certain.
, changed AS (
    SELECT instrument_id, (array_agg(ts ORDER BY ts DESC))[1:%(most)s] AS starts
    FROM judged
    WHERE fate <> 'unchanged' AND ts >= %(noted_since)s::timestamptz
    GROUP BY instrument_id
), placed AS (
    SELECT c.instrument_id, c.starts,
           CASE WHEN k.fresh_until IS NULL OR c.starts[array_upper(c.starts, 1)] < k.fresh_until - %(reach)s::interval THEN (
               SELECT b.ts FROM bars b
               WHERE b.instrument_id = c.instrument_id AND b.interval = %(interval)s::bar_interval
                 AND b.ts >= %(noted_since)s::timestamptz
               ORDER BY b.ts DESC OFFSET %(most)s - 1 LIMIT 1
           ) END AS oldest
    FROM changed c
    LEFT JOIN coverage k ON k.instrument_id = c.instrument_id AND k.interval = %(interval)s::bar_interval
), heard AS (
    SELECT instrument_id, array_agg(ts ORDER BY ts) AS starts
    FROM unnest(%(silent)s::integer[], %(silent_at)s::timestamptz[]) AS h (instrument_id, ts)
    GROUP BY instrument_id
), news AS (
    SELECT instrument_id, ARRAY(
               SELECT ts FROM unnest(p.starts) AS n (ts) WHERE (ts >= p.oldest) IS NOT FALSE ORDER BY ts
           ) AS bars, coalesce(h.starts, '{}') AS silent
    FROM placed p FULL JOIN heard h USING (instrument_id)
), noted AS (
    INSERT INTO bar_outbox (instrument_id, interval, bars, silent)
    SELECT instrument_id, %(interval)s::bar_interval, bars, silent
    FROM news
    WHERE cardinality(bars) > 0 OR cardinality(silent) > 0
    ORDER BY instrument_id
)

-- name: write_counts
-- Ends "write".
SELECT count(*) FILTER (WHERE fate = 'inserted'), count(*) FILTER (WHERE fate = 'revised'),
       count(*) FILTER (WHERE fate = 'promoted'), count(*) FILTER (WHERE fate = 'unchanged')
FROM judged

-- name: quarantine
-- Keep each rejected bar once per reason and provider: a retry that meets it again adds nothing.
INSERT INTO bar_quarantine (instrument_id, interval, ts, reason, provider, attempt_id, bar, seen_at)
SELECT r.instrument_id, %(interval)s::bar_interval, r.ts, r.reason, %(provider)s, %(attempt_id)s, r.bar::jsonb,
       clock_timestamp()
FROM unnest(%(instruments)s::integer[], %(ts)s::timestamptz[], %(reasons)s::text[], %(bars)s::text[])
    AS r (instrument_id, ts, reason, bar)
ORDER BY r.instrument_id, r.ts, r.reason
ON CONFLICT (instrument_id, interval, ts, reason, provider) DO NOTHING

-- name: read
-- The bars of one instrument in a window as they stand: a row per stretch of time, each column the big-endian values of
-- its bars in a row. One wide row costs both ends less than half of what a message per bar does.
SELECT g.start, c.*
FROM generate_series(%(start)s::timestamptz, %(end)s::timestamptz - interval '1 microsecond', %(step)s::interval)
    AS g (start)
CROSS JOIN LATERAL (
    SELECT string_agg(timestamptz_send(ts), '') AS ts, string_agg(float8send(open), '') AS open,
           string_agg(float8send(high), '') AS high, string_agg(float8send(low), '') AS low,
           string_agg(float8send(close), '') AS close, string_agg(float8send(volume), '') AS volume,
           string_agg(boolsend(status = 'final'), '') AS final, string_agg(timestamptz_send(known_at), '') AS known_at,
           string_agg(int8send(attempt_id), '') AS attempt_id, string_agg(provider, ',') AS provider
    FROM (
        SELECT * FROM bars
        WHERE instrument_id = %(instrument)s AND interval = %(interval)s::bar_interval
          AND ts >= g.start AND ts < g.start + %(step)s::interval AND ts >= %(start)s AND ts < %(end)s
        ORDER BY ts
    ) b
    HAVING count(*) > 0
) c

-- name: read_as_of
-- The same as it was known at an instant: what stands now and was known then, and what was replaced since; final is what
-- was final then.
SELECT g.start, c.*
FROM generate_series(%(start)s::timestamptz, %(end)s::timestamptz - interval '1 microsecond', %(step)s::interval)
    AS g (start)
CROSS JOIN LATERAL (
    SELECT string_agg(timestamptz_send(ts), '') AS ts, string_agg(float8send(open), '') AS open,
           string_agg(float8send(high), '') AS high, string_agg(float8send(low), '') AS low,
           string_agg(float8send(close), '') AS close, string_agg(float8send(volume), '') AS volume,
           string_agg(boolsend(status = 'final' AND coalesce(final_at <= %(as_of)s, true)), '') AS final, string_agg(timestamptz_send(known_at), '') AS known_at,
           string_agg(int8send(attempt_id), '') AS attempt_id, string_agg(provider, ',') AS provider
    FROM (
        SELECT ts, open, high, low, close, volume, status, known_at, final_at, attempt_id, provider
        FROM bars
        WHERE instrument_id = %(instrument)s AND interval = %(interval)s::bar_interval
          AND ts >= g.start AND ts < g.start + %(step)s::interval AND ts >= %(start)s AND ts < %(end)s
          AND known_at <= %(as_of)s
        UNION ALL
        SELECT ts, open, high, low, close, volume, status, known_at, final_at, attempt_id, provider
        FROM bar_revisions
        WHERE instrument_id = %(instrument)s AND interval = %(interval)s::bar_interval
          AND ts >= g.start AND ts < g.start + %(step)s::interval AND ts >= %(start)s AND ts < %(end)s
          AND known_at <= %(as_of)s AND superseded_at > %(as_of)s
        ORDER BY ts
    ) b
    HAVING count(*) > 0
) c

-- name: read_coverage
-- Each covered range of the instruments, in order of time.
SELECT c.instrument_id, lower(r.covered), upper(r.covered)
FROM coverage c, unnest(c.covered) AS r (covered)
WHERE c.instrument_id = ANY(%(instruments)s::integer[]) AND c.interval = %(interval)s
ORDER BY 1, 2
