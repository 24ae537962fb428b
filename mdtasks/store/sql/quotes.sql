-- L1 quotes.

-- name: write
-- Keep each quote once: the first answer for an instrument and a time stands.
INSERT INTO quotes (instrument_id, ts, bid, bid_size, ask, ask_size, provider)
SELECT q.*, :provider
FROM unnest(CAST(:instruments AS integer[]), CAST(:ts AS timestamptz[]), CAST(:bid AS double precision[]),
            CAST(:bid_size AS double precision[]), CAST(:ask AS double precision[]),
            CAST(:ask_size AS double precision[])) AS q
ORDER BY 1, 2
ON CONFLICT (instrument_id, ts) DO NOTHING

-- name: latest
-- The newest quote of each instrument: one probe of the key each, newest month first.
SELECT i.id, q.ts, q.bid, q.bid_size, q.ask, q.ask_size
FROM unnest(CAST(:instruments AS integer[])) AS i (id)
CROSS JOIN LATERAL (
    SELECT ts, bid, bid_size, ask, ask_size FROM quotes WHERE instrument_id = i.id ORDER BY ts DESC LIMIT 1
) q
