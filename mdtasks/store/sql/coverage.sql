-- What was answered for at an instant: what changed since. As bars.sql, these run on psycopg, for its reason.

-- name: turned_since
-- The bars of a window that became final after an instant, each with the first time that it did: where it was not final
-- the moment before.
SELECT ts, min(turned_at)
FROM (
    SELECT ts, CASE WHEN status = 'final' AND (final_at IS NOT NULL OR lag(status) OVER versions IS DISTINCT FROM 'final')
                    THEN coalesce(final_at, known_at) END AS turned_at
    FROM (
        SELECT ts, status, known_at, final_at FROM bars
        WHERE instrument_id = %(instrument)s AND interval = %(interval)s::bar_interval
          AND ts >= %(start)s::timestamptz AND ts < %(end)s::timestamptz
          AND (known_at > %(as_of)s OR final_at > %(as_of)s)
        UNION ALL
        SELECT ts, status, known_at, final_at FROM bar_revisions
        WHERE instrument_id = %(instrument)s AND interval = %(interval)s::bar_interval
          AND ts >= %(start)s::timestamptz AND ts < %(end)s::timestamptz AND superseded_at > %(as_of)s
    ) v
    WINDOW versions AS (PARTITION BY ts ORDER BY known_at)
) t
WHERE turned_at > %(as_of)s
GROUP BY ts
ORDER BY ts

-- name: changed_since
-- What coverage was before each change after an instant that reaches into a window, the last change first.
SELECT c.at,
       (SELECT string_agg(timestamptz_send(lower(r)) || timestamptz_send(upper(r)), '' ORDER BY r)
        FROM unnest(c.covered * tstzmultirange(tstzrange(%(start)s, %(end)s))) AS r),
       (SELECT string_agg(timestamptz_send(lower(r)) || timestamptz_send(upper(r)), '' ORDER BY r)
        FROM unnest(c.uncovered * tstzmultirange(tstzrange(%(start)s, %(end)s))) AS r)
FROM coverage_changes c
WHERE c.instrument_id = %(instrument)s AND c.interval = %(interval)s::bar_interval
  AND c.ends_at > %(start)s AND c.starts_at < %(end)s AND c.at > %(as_of)s
ORDER BY c.at DESC, c.id DESC
