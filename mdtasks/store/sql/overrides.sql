-- What people have told of calendars: each change has the next version of all of them.

-- name: lock
-- One change at a time, until its commit: whoever reads a version has all those before it.
SELECT pg_advisory_xact_lock(hashtext('mdtasks.calendars'))

-- name: version
-- The newest version that is committed; 0 when nothing was ever told.
SELECT coalesce(max(greatest(version, undone_version)), 0) FROM calendar_overrides

-- name: standing
-- The newest version and, in the same look, all that holds in it: one row of nulls when nothing does.
SELECT newest.version AS newest, o.mic, o.instrument_id, lower(o."window") AS starts_at, upper(o."window") AS ends_at
FROM (SELECT coalesce(max(greatest(version, undone_version)), 0) AS version FROM calendar_overrides) newest
LEFT JOIN calendar_overrides o ON o.undone_at IS NULL

-- name: standing_at
-- The same as it was at an instant.
SELECT newest.version AS newest, o.mic, o.instrument_id, lower(o."window") AS starts_at, upper(o."window") AS ends_at
FROM (
    SELECT coalesce(max(greatest(version, CASE WHEN undone_at <= :at THEN undone_version END)), 0) AS version
    FROM calendar_overrides WHERE created_at <= :at
) newest
LEFT JOIN calendar_overrides o ON o.created_at <= :at AND (o.undone_at IS NULL OR o.undone_at > :at)

-- name: add
-- Tell of some time, with the next version and an audit row.
WITH added AS (
    INSERT INTO calendar_overrides (mic, instrument_id, kind, session, "window", reason, actor, version, created_at)
    VALUES (CAST(:mic AS text), CAST(:instrument_id AS integer), :kind, CAST(:session AS date),
            tstzrange(:start, :end), :reason, :actor, nextval('calendar_versions'), clock_timestamp())
    RETURNING *
), audited AS (
    INSERT INTO audit_log (actor, action, details)
    SELECT actor, 'calendar.' || kind, jsonb_build_object(
        'override', id, 'mic', mic, 'instrument_id', instrument_id, 'session', session,
        'start', lower("window"), 'end', upper("window"), 'reason', reason, 'version', version)
    FROM added
)
SELECT id FROM added

-- name: undo
-- Let an override no longer hold, with the next version and an audit row; no row when it holds no longer.
WITH undone AS (
    UPDATE calendar_overrides
    SET undone_at = clock_timestamp(), undone_by = :actor, undone_reason = :reason, undone_version = nextval('calendar_versions')
    WHERE id = :id AND undone_at IS NULL
    RETURNING *
), audited AS (
    INSERT INTO audit_log (actor, action, details)
    SELECT undone_by, 'calendar.undo', jsonb_build_object(
        'override', id, 'kind', kind, 'mic', mic, 'instrument_id', instrument_id, 'session', session,
        'reason', undone_reason, 'version', undone_version)
    FROM undone
)
SELECT id FROM undone

-- name: matching
-- Overrides of one exchange, one instrument, or all; those that hold, or all that ever did; newest time first.
SELECT o.id, o.kind, o.mic, o.instrument_id, s.symbol, o.session, lower(o."window") AS start, upper(o."window") AS end,
       o.reason, o.actor, o.version, o.created_at, o.undone_at, o.undone_by, o.undone_reason, o.undone_version
FROM calendar_overrides o
LEFT JOIN symbols s ON s.instrument_id = o.instrument_id AND s.valid_to = 'infinity'
WHERE (CAST(:id AS bigint) IS NULL OR o.id = :id)
  AND (CAST(:mic AS text) IS NULL OR o.mic = :mic)
  AND (CAST(:instrument_id AS integer) IS NULL OR o.instrument_id = :instrument_id)
  AND (:undone OR o.undone_at IS NULL)
ORDER BY lower(o."window") DESC, o.id DESC
