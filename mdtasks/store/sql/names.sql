-- What instruments are called when and when they lived, as it follows the renamings and delistings among the actions.

-- name: due
-- The instruments of which a renaming or a delisting was told for one of these days.
SELECT DISTINCT instrument_id FROM corporate_actions
WHERE kind IN ('rename', 'delisting') AND ex_date BETWEEN CAST(:first AS date) AND CAST(:last AS date)

-- name: concerned
-- Of these instruments those of which a renaming or a delisting was ever told.
SELECT DISTINCT instrument_id FROM corporate_actions
WHERE kind IN ('rename', 'delisting') AND instrument_id = ANY (CAST(:ids AS integer[]))

-- name: bearers
-- Who has ever borne one of these symbols.
SELECT DISTINCT instrument_id FROM symbols WHERE symbol = ANY (CAST(:symbols AS text[]))

-- name: spans
-- All that these instruments have borne.
SELECT instrument_id, nullif(valid_from, '-infinity') AS valid_from, nullif(valid_to, 'infinity') AS valid_to, symbol,
       coalesce(source, '') AS source
FROM symbols WHERE instrument_id = ANY (CAST(:ids AS integer[]))
ORDER BY instrument_id, symbols.valid_from

-- name: lives
SELECT id, mic, tier, listed_from, delisted_on, coalesce(delisted_source, '') AS delisted_source
FROM instruments WHERE id = ANY (CAST(:ids AS integer[]))

-- name: listed
-- What the listing of the version that holds called these instruments, and on which day.
SELECT m.instrument, m.symbol, CAST(CAST(v.header AS jsonb) ->> 'as_of' AS date) AS as_of,
       CAST(v.header AS jsonb) ->> 'source' AS source
FROM universe_members m JOIN universe_versions v USING (version)
WHERE m.version = (SELECT version FROM universe_activations ORDER BY id DESC LIMIT 1)
  AND m.instrument = ANY (CAST(:ids AS integer[]))

-- name: last_bar
-- When the last bar of an instrument starts, of whatever interval, if that is at a moment or later. The moment is one for
-- all: so months before it are left out of the plan, however many there are, and the newest is looked at first.
SELECT max(last.ts)
FROM unnest(enum_range(NULL::bar_interval)) AS i (interval)
CROSS JOIN LATERAL (
    SELECT ts FROM bars
    WHERE instrument_id = :id AND interval = i.interval AND ts >= CAST(:since AS timestamptz)
    ORDER BY ts DESC LIMIT 1
) last

-- name: forget
DELETE FROM symbols WHERE instrument_id = ANY (CAST(:ids AS integer[]))

-- name: bear
INSERT INTO symbols (instrument_id, symbol, valid_from, valid_to, source)
SELECT n.id, n.symbol, coalesce(n.since, '-infinity'), coalesce(n.until, 'infinity'), nullif(n.source, '')
FROM unnest(CAST(:ids AS integer[]), CAST(:symbols AS text[]), CAST(:since AS date[]), CAST(:until AS date[]),
            CAST(:sources AS text[])) AS n (id, symbol, since, until, source)

-- name: live
-- When the life of an instrument ended, as the actions tell; null: they tell nothing any more.
UPDATE instruments SET delisted_on = CAST(:day AS date), delisted_source = CAST(:source AS text) WHERE id = :id
