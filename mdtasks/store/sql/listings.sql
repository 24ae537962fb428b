-- Listings as they came, whom their rows mean, and what they tell of instruments.

-- name: keep
-- Keep a listing; one that is kept already is only seen to have come again.
INSERT INTO listing_snapshots (source, as_of, sha256, row_count, size_bytes, body)
VALUES (:source, :as_of, :sha256, :row_count, :size_bytes, :body)
ON CONFLICT (source, as_of, sha256) DO UPDATE SET fetched_at = clock_timestamp()

-- name: newest_day
-- The newest day that a source has told of; null: none.
SELECT max(as_of) FROM listing_snapshots WHERE source = :source

-- name: last_fetched
-- When a source last told something; null: never.
SELECT max(fetched_at) FROM listing_snapshots WHERE source = :source

-- name: window
-- A source's listings of the last :days days that it told of, up to one; of a day the one that came last; oldest first.
SELECT as_of, sha256, row_count FROM (
    SELECT DISTINCT ON (as_of) as_of, sha256, row_count
    FROM listing_snapshots
    WHERE source = :source AND as_of <= :as_of
    ORDER BY as_of DESC, fetched_at DESC, id DESC
    LIMIT :days
) newest ORDER BY as_of

-- name: body
-- The bytes kept of one listing, compressed.
SELECT body FROM listing_snapshots WHERE source = :source AND as_of = :as_of AND sha256 = :sha256

-- name: keys
-- Whom a source's keys mean, from which day on, up to a day.
SELECT key, valid_from, instrument_id FROM listing_keys
WHERE source = :source AND valid_from <= :as_of
ORDER BY key, valid_from

-- name: add_keys
INSERT INTO listing_keys (source, key, valid_from, instrument_id)
SELECT :source, k.key, :as_of, k.instrument_id
FROM unnest(CAST(:keys AS text[]), CAST(:instruments AS integer[])) AS k (key, instrument_id)
ON CONFLICT (source, key, valid_from) DO UPDATE SET instrument_id = excluded.instrument_id

-- name: known
-- Instruments with what they bear now, by id or by symbol.
SELECT i.id, s.symbol, i.mic, i.listed_from, i.delisted_on
FROM instruments i LEFT JOIN symbols s ON s.instrument_id = i.id AND s.valid_to = 'infinity'
WHERE i.id = ANY (CAST(:ids AS integer[]))
UNION
SELECT i.id, s.symbol, i.mic, i.listed_from, i.delisted_on
FROM symbols s JOIN instruments i ON i.id = s.instrument_id
WHERE s.symbol = ANY (CAST(:symbols AS text[])) AND s.valid_to = 'infinity'

-- name: known_on
-- The same with what they bore on a day, where they bore anything then; and whether that is another thing than now, which
-- somebody told of since. By symbol also those who bear it since then.
WITH asked AS (
    SELECT unnest(CAST(:ids AS integer[])) AS id
    UNION
    SELECT instrument_id FROM symbols WHERE symbol = ANY (CAST(:symbols AS text[])) AND valid_to > CAST(:day AS date)
)
SELECT i.id, coalesce(o.symbol, n.symbol) AS symbol, i.mic, i.listed_from, i.delisted_on,
       coalesce(o.symbol <> coalesce(n.symbol, ''), false) AS changed, n.symbol AS now
FROM asked a
JOIN instruments i USING (id)
LEFT JOIN symbols n ON n.instrument_id = i.id AND n.valid_to = 'infinity'
LEFT JOIN LATERAL (
    SELECT symbol FROM symbols
    WHERE instrument_id = i.id AND valid_from <= CAST(:day AS date) AND valid_to > CAST(:day AS date)
    ORDER BY valid_from DESC LIMIT 1
) o ON true

-- name: close_symbols
-- What these instruments bear they bear no longer, from a day on or since they died.
UPDATE symbols s SET valid_to = least(CAST(:as_of AS date), i.delisted_on)
FROM instruments i
WHERE i.id = s.instrument_id AND s.valid_to = 'infinity' AND s.instrument_id = ANY (CAST(:ids AS integer[]))

-- name: drop_empty
-- What was borne for no time at all: renamed twice on a day.
DELETE FROM symbols WHERE valid_to <= valid_from AND instrument_id = ANY (CAST(:ids AS integer[]))

-- name: open_symbols
-- What these instruments bear from a day on.
INSERT INTO symbols (instrument_id, symbol, valid_from, source)
SELECT n.instrument_id, n.symbol, :as_of, CAST(:source AS text)
FROM unnest(CAST(:ids AS integer[]), CAST(:symbols AS text[])) AS n (instrument_id, symbol)
ON CONFLICT (instrument_id, symbol, valid_from) DO UPDATE SET valid_to = 'infinity', source = excluded.source

-- name: bear
-- Instruments that nobody knew, followed by nobody yet. A symbol that others bore before is theirs until they lost it.
WITH given AS MATERIALIZED (
    SELECT nextval(pg_get_serial_sequence('instruments', 'id'))::integer AS id, g.*
    FROM (
        SELECT * FROM unnest(CAST(:symbols AS text[]), CAST(:mics AS text[]), CAST(:kinds AS text[]),
                             CAST(:listed AS date[]), CAST(:delisted AS date[]))
            WITH ORDINALITY AS u (symbol, mic, kind, listed_from, delisted_on, place)
        ORDER BY place
    ) g
), past AS MATERIALIZED (
    SELECT symbol, max(valid_to) AS until FROM symbols WHERE symbol = ANY (CAST(:symbols AS text[])) GROUP BY symbol
), made AS (
    INSERT INTO instruments (id, mic, kind, tier, listed_from, delisted_on)
    SELECT id, mic, kind, NULL, listed_from, delisted_on FROM given
), borne AS (
    INSERT INTO symbols (instrument_id, symbol, valid_from)
    SELECT g.id, g.symbol, coalesce(greatest(g.listed_from, p.until), '-infinity')
    FROM given g LEFT JOIN past p USING (symbol)
)
SELECT id FROM given ORDER BY place

-- name: live
-- What is known of the lives of these instruments.
UPDATE instruments i
SET listed_from = n.listed_from, delisted_on = n.delisted_on,
    delisted_source = CASE WHEN i.delisted_on IS DISTINCT FROM n.delisted_on THEN CAST(:source AS text)
                           ELSE i.delisted_source END
FROM unnest(CAST(:ids AS integer[]), CAST(:listed AS date[]), CAST(:delisted AS date[]))
    AS n (id, listed_from, delisted_on)
WHERE i.id = n.id

-- name: audit
-- Put on record who bears what from a day on, or nothing.
INSERT INTO audit_log (actor, action, details)
SELECT :actor, 'universe.rename', jsonb_build_object('instrument', n.id, 'from', n.old, 'to', n.new, 'on', CAST(:as_of AS date),
                                                     'source', CAST(:source AS text))
FROM unnest(CAST(:ids AS integer[]), CAST(:old AS text[]), CAST(:new AS text[])) AS n (id, old, new)

-- name: traded
-- Of each followed or listed instrument its last :days daily bars before a day: how many, and whole dollars in all.
SELECT instrument_id, count(*) AS days, sum(trunc(CAST(close AS numeric) * CAST(volume AS numeric))) AS dollars
FROM (
    SELECT instrument_id, close, volume, row_number() OVER (PARTITION BY instrument_id ORDER BY ts DESC) AS place
    FROM bars
    WHERE interval = '1d' AND ts < CAST(:as_of AS date) AND ts >= CAST(:as_of AS date) - 2 * CAST(:days AS integer) - 10
      AND close >= 0 AND volume >= 0 AND close < 'infinity' AND volume < 'infinity'
) b
WHERE place <= :days
GROUP BY instrument_id
