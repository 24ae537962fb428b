-- Comparisons of bars of two sources: what to compare, and what was found. They run on psycopg.

-- name: days
-- Daily bars of vendors, final, beside what their minutes make, all of them answered for and final: those that were not
-- compared yet, or not since the day or a minute of it was revised. Newest sessions first, at most so many. The days and
-- their minutes stand in stage_derived (derived.sql).
WITH due AS MATERIALIZED (
    SELECT w.instrument_id, w.ts, w.parts, d.open, d.high, d.low, d.close, d.volume, d.provider, d.known_at
    FROM stage_derived w
    JOIN bars d ON d.instrument_id = w.instrument_id AND d.interval = '1d' AND d.ts = w.ts
        AND d.ts >= %(first)s::timestamptz - interval '2 days' AND d.ts < %(last)s::timestamptz + interval '2 days'
    LEFT JOIN LATERAL (
        SELECT at, known_at FROM reconciliations r
        WHERE r.instrument_id = w.instrument_id AND r.interval = '1d' AND r.ts = w.ts AND r.kind = 'minutes'
        ORDER BY r.at DESC LIMIT 1
    ) r ON true
    WHERE w.whole AND d.status = 'final' AND d.provider <> 'derived'
      AND NOT EXISTS (
          SELECT FROM bars p
          WHERE p.instrument_id = w.instrument_id AND p.interval = '1m' AND p.ts >= lower(w.parts)
            AND p.ts < upper(w.parts) AND w.parts @> p.ts AND p.status <> 'final'
            AND p.ts >= %(first)s::timestamptz AND p.ts < %(last)s::timestamptz)
      AND (r.at IS NULL OR r.known_at <> d.known_at OR EXISTS (
          SELECT FROM bar_revisions v
          WHERE v.instrument_id = w.instrument_id AND v.interval = '1m' AND v.ts >= lower(w.parts)
            AND v.ts < upper(w.parts) AND v.superseded_at > r.at))
    ORDER BY w.ts DESC, w.instrument_id
    LIMIT %(most)s
)
SELECT e.instrument_id, e.ts, e.provider, e.known_at, e.open, e.high, e.low, e.close, e.volume, m.*
FROM due e CROSS JOIN LATERAL (
    SELECT string_agg(DISTINCT provider, ',') AS providers, max(known_at) AS known_at,
           (array_agg(open ORDER BY ts))[1], max(high), min(low), (array_agg(close ORDER BY ts))[count(*)],
           sum(volume ORDER BY ts)
    FROM bars
    WHERE instrument_id = e.instrument_id AND interval = '1m' AND e.parts @> ts
      AND ts >= lower(e.parts) AND ts < upper(e.parts)
      AND ts >= %(first)s::timestamptz AND ts < %(last)s::timestamptz
    HAVING count(*) > 0 AND bool_and(status = 'final')
) m

-- name: members
-- Whose bars may be compared: instruments that bear a symbol, of these tiers, by exchange.
SELECT i.id, s.symbol, i.mic, i.kind, i.tier
FROM instruments i JOIN symbols s ON s.instrument_id = i.id AND s.valid_to = 'infinity'
WHERE i.tier = ANY (%(tiers)s::tier[])
ORDER BY i.id

-- name: keep
INSERT INTO reconciliations (kind, instrument_id, interval, ts, provider, bar, known_at, other_provider, other_bar,
                             other_known_at, apart_bp, beyond, wrong, policy_version)
SELECT r.kind, r.instrument_id, r.interval::bar_interval, r.ts, r.provider, r.bar::double precision[], r.known_at,
       r.other_provider, r.other_bar::double precision[], r.other_known_at, r.apart_bp::double precision[],
       r.beyond::text[], r.wrong, %(policy_version)s
FROM unnest(%(kinds)s::text[], %(instruments)s::integer[], %(intervals)s::text[], %(ts)s::timestamptz[],
            %(providers)s::text[], %(bars)s::text[], %(known_ats)s::timestamptz[], %(other_providers)s::text[],
            %(other_bars)s::text[], %(other_known_ats)s::timestamptz[], %(aparts)s::text[], %(beyonds)s::text[],
            %(wrongs)s::text[])
    AS r (kind, instrument_id, interval, ts, provider, bar, known_at, other_provider, other_bar, other_known_at,
          apart_bp, beyond, wrong)

-- name: summary
-- How often which sources were compared since then, and how often they disagreed; the worst of each field.
SELECT r.kind, r.interval, r.provider, r.other_provider, count(*), count(*) FILTER (WHERE r.beyond <> '{}'),
       count(*) FILTER (WHERE r.wrong = r.provider), count(*) FILTER (WHERE r.wrong = r.other_provider),
       max(r.apart_bp[1]), max(r.apart_bp[2]), max(r.apart_bp[3]), max(r.apart_bp[4]), max(r.apart_bp[5]), max(r.at)
FROM reconciliations r
WHERE r.at >= %(since)s
  AND (%(instruments)s::integer[] IS NULL OR r.instrument_id = ANY (%(instruments)s::integer[]))
GROUP BY r.kind, r.interval, r.provider, r.other_provider
ORDER BY 6 DESC, 5 DESC, 1, 2, 3, 4

-- name: disagreements
-- The newest comparisons since then that disagreed, with both values.
SELECT r.at, r.kind, s.symbol, r.interval, r.ts, r.provider, r.bar, r.known_at, r.other_provider, r.other_bar,
       r.other_known_at, r.apart_bp, r.beyond, r.wrong
FROM reconciliations r
LEFT JOIN symbols s ON s.instrument_id = r.instrument_id AND s.valid_to = 'infinity'
WHERE r.at >= %(since)s AND r.beyond <> '{}'
  AND (%(instruments)s::integer[] IS NULL OR r.instrument_id = ANY (%(instruments)s::integer[]))
ORDER BY r.at DESC, r.id DESC
LIMIT %(limit)s
