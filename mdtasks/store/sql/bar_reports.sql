-- What people read of the bars beside the bars themselves.

-- name: stored_series
-- The intervals of which an instrument has bars, with the first and the last start. Two looks into the key each: no count.
SELECT i.interval, first.ts AS first_at, last.ts AS last_at
FROM unnest(enum_range(NULL::bar_interval)) AS i (interval)
CROSS JOIN LATERAL (
    SELECT ts FROM bars WHERE instrument_id = :instrument AND interval = i.interval ORDER BY ts LIMIT 1
) first
CROSS JOIN LATERAL (
    SELECT ts FROM bars WHERE instrument_id = :instrument AND interval = i.interval ORDER BY ts DESC LIMIT 1
) last
ORDER BY i.interval

-- name: quarantined
-- Bars that were kept out, those seen last first: what broke which rule, and the job whose attempt brought it first.
SELECT s.symbol, q.interval, q.ts, q.reason, q.provider, q.bar, q.seen_at, q.attempt_id, a.job_id
FROM bar_quarantine q
JOIN symbols s ON s.instrument_id = q.instrument_id AND s.valid_to = 'infinity'
LEFT JOIN job_attempts a ON a.id = q.attempt_id
WHERE (CAST(:symbols AS text[]) IS NULL OR s.symbol = ANY (CAST(:symbols AS text[])))
  AND (CAST(:interval AS text) IS NULL OR q.interval = CAST(:interval AS bar_interval))
  AND (CAST(:provider AS text) IS NULL OR q.provider = :provider)
  AND (CAST(:since AS timestamptz) IS NULL OR q.seen_at >= :since)
ORDER BY q.seen_at DESC, q.id DESC
LIMIT :limit

-- name: rejected
-- The quarantined bars of a series in a window, all or those seen by an instant.
SELECT ts, reason, provider, seen_at
FROM bar_quarantine
WHERE instrument_id = :instrument AND interval = CAST(:interval AS bar_interval) AND ts >= :start AND ts < :end
  AND (CAST(:at AS timestamptz) IS NULL OR seen_at <= :at)
ORDER BY ts, reason, provider

-- name: revisions
-- The bars of a series in a window that were replaced, those replaced last first, each beside what stands now.
SELECT r.ts, r.open, r.high, r.low, r.close, r.volume, r.provider, r.known_at, r.superseded_at,
       b.close AS close_now, b.volume AS volume_now, b.provider AS provider_now
FROM bar_revisions r
JOIN bars b ON b.instrument_id = r.instrument_id AND b.interval = r.interval AND b.ts = r.ts
WHERE r.instrument_id = :instrument AND r.interval = CAST(:interval AS bar_interval)
  AND r.ts >= :start AND r.ts < :end
ORDER BY r.superseded_at DESC, r.ts DESC
LIMIT :limit

-- name: count_bars
-- Per instrument: how many bars, the first, the last, how many of them provisional.
SELECT instrument_id, count(*), min(ts), max(ts), count(*) FILTER (WHERE status = 'provisional')
FROM bars
WHERE instrument_id = ANY (CAST(:instruments AS integer[])) AND interval = CAST(:interval AS bar_interval)
GROUP BY instrument_id

-- name: newest_bars
-- The newest bar of each of the series whose coverage grew last: a look at what comes in, not a census.
SELECT s.symbol, c.interval, b.ts, b.close, b.provider, b.status = 'final', b.known_at
FROM (SELECT instrument_id, interval FROM coverage ORDER BY updated_at DESC LIMIT :limit) c
JOIN symbols s ON s.instrument_id = c.instrument_id AND s.valid_to = 'infinity'
CROSS JOIN LATERAL (
    SELECT ts, close, provider, status, known_at FROM bars
    WHERE instrument_id = c.instrument_id AND interval = c.interval
    ORDER BY ts DESC LIMIT 1
) b
ORDER BY s.symbol, c.interval
