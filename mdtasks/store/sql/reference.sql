-- Instruments and the symbols they bear.

-- name: lock
-- One change of the universe at a time: two cannot both find a symbol free.
SELECT pg_advisory_xact_lock(hashtext('mdtasks.universe'))

-- name: lock_shared
-- Who waits for changes need not wait for others that do.
SELECT pg_advisory_xact_lock_shared(hashtext('mdtasks.universe'))

-- name: bearers
-- The instruments that bear these symbols now.
SELECT i.id, s.symbol, i.mic, i.kind, i.tier, i.listed_from, i.delisted_on
FROM symbols s JOIN instruments i ON i.id = s.instrument_id
WHERE s.symbol = ANY(CAST(:symbols AS text[])) AND s.valid_to = 'infinity'

-- name: as_of
-- What the three statements below begin with: the symbols that were borne as far as was known at an instant, and how
-- instruments were followed and listed then.
WITH borne AS (
    SELECT instrument_id, symbol FROM symbols WHERE valid_to = 'infinity' AND known_at <= :as_of
    UNION ALL
    SELECT instrument_id, symbol FROM symbol_revisions
    WHERE valid_to = 'infinity' AND known_at <= :as_of AND superseded_at > :as_of
), held AS (
    SELECT i.id, b.symbol, h.mic, h.kind, h.tier, h.listed_from, h.delisted_on
    FROM borne b
    JOIN instruments i ON i.id = b.instrument_id
    CROSS JOIN LATERAL (
        SELECT mic, kind, tier, listed_from, delisted_on, superseded_at FROM instrument_revisions
        WHERE instrument_id = i.id AND superseded_at > :as_of
        UNION ALL
        SELECT i.mic, i.kind, i.tier, i.listed_from, i.delisted_on, 'infinity'
        ORDER BY superseded_at LIMIT 1
    ) h
)

-- name: bearers_as_of
SELECT * FROM held WHERE symbol = ANY (CAST(:symbols AS text[]))

-- name: members_as_of
-- Whom the universe followed then, by symbol.
SELECT * FROM held WHERE tier IS NOT NULL ORDER BY symbol

-- name: called_as_of
-- What those bore then that bear these symbols now: in words for who asks by a name that nobody bore yet.
SELECT s.symbol AS now, h.symbol
FROM held h JOIN symbols s ON s.instrument_id = h.id AND s.valid_to = 'infinity'
WHERE s.symbol = ANY (CAST(:symbols AS text[]))

-- name: tiers_between
-- The tiers of an instrument from one instant to another, each with who gave it; the first is of the one or of when it was
-- known. A version that gave it says by whom it came to hold, and why.
SELECT t.at, t.tier, t.tier_source, v.version_tag,
       coalesce(a.actor, substring(t.tier_source FROM '^person:(.*)')) AS actor, a.reason, m.rank
FROM (
    SELECT coalesce(lag(until) OVER (ORDER BY until), i.created_at) AS at, until, h.tier, h.tier_source
    FROM instruments i
    CROSS JOIN LATERAL (
        SELECT superseded_at AS until, tier, tier_source FROM instrument_revisions WHERE instrument_id = i.id
        UNION ALL
        SELECT 'infinity', i.tier, i.tier_source
    ) h
    WHERE i.id = :instrument
) t
LEFT JOIN universe_activations a ON a.activated_at = t.at AND t.tier_source LIKE 'version:%'
LEFT JOIN universe_versions v USING (version)
LEFT JOIN universe_members m ON m.version = a.version AND m.instrument = :instrument
WHERE t.at <= :until AND t.until > :since
ORDER BY t.until

-- name: bearers_on
-- The instruments that bore these symbols on a day, under those.
SELECT i.id, s.symbol, i.mic, i.kind, i.tier, i.listed_from, i.delisted_on
FROM symbols s JOIN instruments i ON i.id = s.instrument_id
WHERE s.symbol = ANY(CAST(:symbols AS text[])) AND s.valid_from <= CAST(:day AS date) AND s.valid_to > CAST(:day AS date)

-- name: renamed
-- Who gave these symbols up since a day for others, under those that they gave up.
SELECT i.id, n.symbol, i.mic, i.kind, i.tier, i.listed_from, i.delisted_on, s.symbol AS old
FROM symbols s
JOIN symbols n ON n.instrument_id = s.instrument_id AND n.valid_to = 'infinity'
JOIN instruments i ON i.id = s.instrument_id
WHERE s.symbol = ANY(CAST(:symbols AS text[])) AND s.valid_to >= CAST(:day AS date) AND s.valid_to < 'infinity'
ORDER BY s.valid_to

-- name: ever
-- Who has borne a symbol, and what those have borne else, from when until when (the first day on which not any more).
SELECT s.instrument_id, s.symbol, nullif(s.valid_from, '-infinity') AS valid_from, nullif(s.valid_to, 'infinity') AS valid_to,
       i.mic, i.kind, i.tier, i.listed_from, i.delisted_on
FROM symbols s JOIN instruments i ON i.id = s.instrument_id
WHERE s.instrument_id IN (SELECT instrument_id FROM symbols WHERE symbol = :symbol)
ORDER BY s.instrument_id, s.valid_from

-- name: members
-- All instruments of the universe that bear a symbol now, of one tier or of all, by symbol.
SELECT i.id, s.symbol, i.mic, i.kind, i.tier, i.listed_from, i.delisted_on
FROM symbols s JOIN instruments i ON i.id = s.instrument_id
WHERE s.valid_to = 'infinity' AND i.tier IS NOT NULL
  AND (CAST(:tier AS tier) IS NULL OR i.tier = CAST(:tier AS tier))
ORDER BY s.symbol

-- name: exchanges
-- Where the instruments trade that bear a symbol; of a tier or of all, not delisted on :day or whenever.
SELECT DISTINCT i.mic
FROM symbols s JOIN instruments i ON i.id = s.instrument_id
WHERE s.valid_to = 'infinity' AND i.tier IS NOT NULL
  AND (CAST(:tier AS tier) IS NULL OR i.tier = CAST(:tier AS tier))
  AND (CAST(:day AS date) IS NULL OR i.delisted_on IS NULL OR i.delisted_on > CAST(:day AS date))
ORDER BY i.mic

-- name: mics_of
SELECT id, mic FROM instruments WHERE id = ANY (CAST(:ids AS integer[]))

-- name: all_symbols
-- Every symbol borne now.
SELECT symbol FROM symbols WHERE valid_to = 'infinity' ORDER BY symbol

-- name: add
-- New instruments with their symbols, in order.
WITH given AS MATERIALIZED (
    SELECT nextval(pg_get_serial_sequence('instruments', 'id'))::integer AS id, g.*
    FROM unnest(CAST(:symbols AS text[]), CAST(:mics AS text[]), CAST(:kinds AS text[]), CAST(:tiers AS tier[]),
                CAST(:listed AS date[]), CAST(:delisted AS date[]))
        AS g (symbol, mic, kind, tier, listed_from, delisted_on)
), past AS MATERIALIZED (
    SELECT symbol, max(valid_to) AS until FROM symbols WHERE symbol = ANY (CAST(:symbols AS text[])) GROUP BY symbol
), made AS (
    INSERT INTO instruments (id, mic, kind, tier, listed_from, delisted_on)
    SELECT id, mic, kind, tier, listed_from, delisted_on FROM given
)
INSERT INTO symbols (instrument_id, symbol, valid_from)
SELECT g.id, g.symbol, coalesce(greatest(g.listed_from, p.until), '-infinity')
FROM given g LEFT JOIN past p USING (symbol)

-- name: let_go
-- These instruments bear no symbol any more since they died.
UPDATE symbols s SET valid_to = i.delisted_on
FROM instruments i
WHERE i.id = s.instrument_id AND s.valid_to = 'infinity' AND i.id = ANY (CAST(:ids AS integer[]))

-- name: follow
-- Give those a tier that have none.
UPDATE instruments i SET tier = n.tier, tier_since = universe_instant(), tier_source = NULL
FROM unnest(CAST(:ids AS integer[]), CAST(:tiers AS tier[])) AS n (id, tier)
WHERE i.id = n.id AND i.tier IS NULL

-- name: delist
-- When an instrument's life ended; null: it lives.
UPDATE instruments SET delisted_on = CAST(:day AS date), delisted_source = 'person' WHERE id = :id

-- name: set_tier
-- Move the instruments that bear these symbols to a tier, on somebody's word; those already there stay untouched.
WITH moved AS (
    UPDATE instruments i
    SET tier = CAST(:tier AS tier), tier_since = universe_instant(), tier_source = 'person:' || CAST(:actor AS text)
    FROM symbols s JOIN instruments o ON o.id = s.instrument_id
    WHERE o.id = i.id AND s.valid_to = 'infinity' AND s.symbol = ANY (CAST(:symbols AS text[]))
      AND i.tier IS DISTINCT FROM CAST(:tier AS tier)
    RETURNING i.id, s.symbol, o.tier AS before
)
INSERT INTO audit_log (actor, action, details)
SELECT CAST(:actor AS text), 'universe.tier',
       jsonb_build_object('instrument', id, 'symbol', symbol, 'from', before, 'to', CAST(:tier AS text))
FROM moved
RETURNING id
