-- Corporate actions: statements, in the order in which they were told; the closes that dividends go by; what is checked.

-- name: lock
-- One writer at a time until its commit, and none while somebody reads as of an instant: what that reader does not see is
-- dated after it.
SELECT pg_advisory_xact_lock(hashtext('mdtasks.actions'))

-- name: lock_shared
-- Wait for whoever is writing: what is committed after this is dated after it.
SELECT pg_advisory_xact_lock_shared(hashtext('mdtasks.actions'))

-- name: told
-- Every statement about these instruments that was known then (null: by now), in the order told.
SELECT id, instrument_id, kind, ex_date, value, currency, symbol, reference, declared_on, record_on, pay_on, source,
       withdrawn, known_at, reason
FROM corporate_actions
WHERE instrument_id = ANY (CAST(:instruments AS integer[]))
  AND (CAST(:as_of AS timestamptz) IS NULL OR known_at <= :as_of)
  AND (CAST(:kinds AS text[]) IS NULL OR kind = ANY (CAST(:kinds AS text[])))
ORDER BY id

-- name: tell
-- Put statements on record, dated by the server's clock, later than all before them even when it was set back; each
-- takes the place of its source's latest one on the same instrument, kind and day (of spin-offs: and company).
WITH moment AS MATERIALIZED (
    SELECT greatest(clock_timestamp(), (SELECT max(known_at) FROM corporate_actions) + interval '1 microsecond') AS at
), given AS (
    SELECT * FROM unnest(
        CAST(:instruments AS integer[]), CAST(:kinds AS text[]), CAST(:ex_dates AS date[]),
        CAST(:values AS double precision[]), CAST(:currencies AS text[]), CAST(:symbols AS text[]),
        CAST(:references AS double precision[]), CAST(:declared AS date[]), CAST(:record AS date[]),
        CAST(:pay AS date[]), CAST(:withdrawn AS boolean[]), CAST(:reasons AS text[]))
        WITH ORDINALITY AS g (instrument_id, kind, ex_date, value, currency, symbol, reference, declared_on, record_on,
                              pay_on, withdrawn, reason, place)
), made AS (
    INSERT INTO corporate_actions (instrument_id, kind, ex_date, value, currency, symbol, reference, declared_on,
                                   record_on, pay_on, source, withdrawn, supersedes, actor, reason, known_at)
    SELECT g.instrument_id, g.kind, g.ex_date, g.value, g.currency, g.symbol, g.reference, g.declared_on,
           g.record_on, g.pay_on, :source, g.withdrawn,
           (SELECT max(o.id) FROM corporate_actions o
            WHERE o.instrument_id = g.instrument_id AND o.kind = g.kind AND o.ex_date = g.ex_date
              AND o.source = :source AND (g.kind <> 'spin_off' OR o.symbol IS NOT DISTINCT FROM g.symbol)),
           CAST(:actor AS text), g.reason, moment.at
    FROM given g, moment
    ORDER BY g.place
    RETURNING *
), audited AS (
    -- What a person did is in the audit log too.
    INSERT INTO audit_log (actor, action, details)
    SELECT actor, CASE WHEN bool_and(withdrawn) THEN 'actions.withdraw' ELSE 'actions.tell' END,
           jsonb_build_object('source', min(source), 'ids', jsonb_agg(id ORDER BY id), 'reason', min(reason))
    FROM made WHERE actor IS NOT NULL GROUP BY actor
)
SELECT id FROM made

-- name: answered
-- Remember that a provider has answered for these days, or with an error that the next question would meet too.
INSERT INTO action_answers AS a (instrument_id, source, first_day, last_day, error)
SELECT i.id, :source, CAST(:first_day AS date), CAST(:last_day AS date), CAST(:error AS text)
FROM unnest(CAST(:instruments AS integer[])) AS i (id) ORDER BY i.id
ON CONFLICT (instrument_id, source) DO UPDATE
SET first_day = least(a.first_day, excluded.first_day), last_day = greatest(a.last_day, excluded.last_day),
    error = excluded.error, asked_at = now()

-- name: since
-- From when on there are bars of these instruments, of any interval, as far as providers have answered.
SELECT instrument_id, min(lower(covered)) AS since
FROM coverage
WHERE instrument_id = ANY (CAST(:instruments AS integer[])) AND NOT isempty(covered)
GROUP BY instrument_id

-- name: answers
-- Who has answered for which days of these instruments.
SELECT instrument_id, source, first_day, last_day, error, asked_at
FROM action_answers
WHERE instrument_id = ANY (CAST(:instruments AS integer[]))
ORDER BY instrument_id, source

-- name: closes
-- The close of the last bar that starts before each bound, and not long before it, as it stands or as it was known then.
SELECT b.place, last.ts, last.close
FROM unnest(CAST(:befores AS timestamptz[])) WITH ORDINALITY AS b (before, place)
CROSS JOIN LATERAL (
    SELECT close, ts FROM bars
    WHERE instrument_id = :instrument AND interval = CAST(:interval AS bar_interval)
      AND ts < b.before AND ts >= b.before - CAST(:reach AS interval)
      AND (CAST(:as_of AS timestamptz) IS NULL OR known_at <= :as_of)
    UNION ALL
    SELECT close, ts FROM bar_revisions
    WHERE CAST(:as_of AS timestamptz) IS NOT NULL
      AND instrument_id = :instrument AND interval = CAST(:interval AS bar_interval)
      AND ts < b.before AND ts >= b.before - CAST(:reach AS interval)
      AND known_at <= :as_of AND superseded_at > :as_of
    ORDER BY ts DESC
    LIMIT 1
) last

-- name: steps
-- Those daily bars of these instruments since a day that may say something of corporate actions, each with the close of
-- the one before it: the price jumped by more than any news but the worst does (0.6: by 1.8), or an action that changes
-- it by much is told for that day. Actions are followed to their bars, which are many more.
WITH jumped AS (
    SELECT instrument_id, ts FROM (
        SELECT instrument_id, ts, open, lag(close) OVER (PARTITION BY instrument_id ORDER BY ts) AS close_before
        FROM bars
        WHERE instrument_id = ANY (CAST(:instruments AS integer[])) AND interval = '1d'
          AND ts >= CAST(:since AS timestamptz) - interval '14 days'
    ) b
    WHERE close_before > 0 AND open > 0 AND abs(ln(close_before / open)) > 0.6
), told AS (
    SELECT DISTINCT instrument_id, kind, ex_date, value
    FROM corporate_actions
    WHERE instrument_id = ANY (CAST(:instruments AS integer[])) AND NOT withdrawn
      AND kind IN ('split', 'stock_dividend', 'spin_off', 'dividend')
      AND ex_date >= CAST(CAST(:since AS timestamptz) AT TIME ZONE 'UTC' AS date) - 14
), looked_at AS (
    SELECT instrument_id, ts, CAST(NULL AS double precision) AS paid FROM jumped
    UNION ALL
    SELECT t.instrument_id, n.ts, CASE t.kind WHEN 'dividend' THEN t.value END
    FROM told t
    CROSS JOIN LATERAL (
        SELECT ts FROM bars
        WHERE instrument_id = t.instrument_id AND interval = '1d'
          AND ts >= t.ex_date AT TIME ZONE 'UTC' AND ts < (t.ex_date + 14) AT TIME ZONE 'UTC'
        ORDER BY ts LIMIT 1
    ) n
)
SELECT DISTINCT b.instrument_id, b.ts, b.open, b.high, b.low, b.close, b.volume, b.provider, b.attempt_id,
       before.close AS close_before, before.ts AS ts_before
FROM looked_at l
JOIN bars b ON b.instrument_id = l.instrument_id AND b.interval = '1d' AND b.ts = l.ts
CROSS JOIN LATERAL (
    SELECT ts, close FROM bars
    WHERE instrument_id = l.instrument_id AND interval = '1d' AND ts < l.ts AND ts >= l.ts - interval '14 days'
    ORDER BY ts DESC LIMIT 1
) before
WHERE l.ts >= CAST(:since AS timestamptz) AND (l.paid IS NULL OR l.paid > 0.1 * before.close)
ORDER BY b.instrument_id, b.ts

-- name: suspect
-- Keep the bar of a suspicion once, with the attempt that brought it.
INSERT INTO bar_quarantine (instrument_id, interval, ts, reason, provider, attempt_id, bar)
VALUES (:instrument, '1d', :ts, :reason, :provider, :attempt_id, CAST(:bar AS jsonb))
ON CONFLICT (instrument_id, interval, ts, reason, provider) DO NOTHING
RETURNING id

-- name: restate
-- Let the letter of a finding that holds say what is known now, and open it again where it was closed as mended: true.
UPDATE dead_letters l
SET state = 'open', message = left(CAST(:message AS text), 4000), symbol = CAST(:symbol AS text),
    died_at = CASE WHEN was.state = 'resolved' THEN now() ELSE l.died_at END, updated_at = now()
FROM (SELECT id, state FROM dead_letters WHERE id = :id FOR UPDATE) was
WHERE l.id = was.id
  AND (was.state = 'resolved' OR (was.state = 'open' AND (l.message, l.symbol) IS DISTINCT FROM
                                                         (left(CAST(:message AS text), 4000), CAST(:symbol AS text))))
RETURNING was.state = 'resolved'

-- name: resolve
-- Close the letters of findings about these instruments' days since one that do not hold (any more).
UPDATE dead_letters SET state = 'resolved', updated_at = now()
WHERE kind = 'action' AND state = 'open' AND id <> ALL (CAST(:held AS text[]))
  AND (error_class = 'name_unclear') = :names
  AND split_part(id, ':', 2) = ANY (CAST(:instruments AS text[])) AND split_part(id, ':', 3) >= :since
