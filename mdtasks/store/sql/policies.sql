-- The policy on record: each change is a row, none is ever changed.

-- name: lock
-- One change at a time, until its commit.
SELECT pg_advisory_xact_lock(hashtext('mdtasks.policy'))

-- name: newest
-- The newest version with its content; no row when nothing was ever applied.
SELECT version, hash, body, author, reason, parent, restores, created_at
FROM policy_versions
ORDER BY version DESC
LIMIT 1

-- name: newest_version
-- The newest version that is committed; 0 when nothing was ever applied.
SELECT coalesce(max(version), 0) FROM policy_versions

-- name: one
-- One version with its content.
SELECT version, hash, body, author, reason, parent, restores, created_at
FROM policy_versions
WHERE version = :version

-- name: add
-- A new version, with an audit row.
WITH added AS (
    INSERT INTO policy_versions (hash, body, author, reason, parent, restores)
    VALUES (:hash, CAST(:body AS jsonb), :author, :reason, :parent, CAST(:restores AS bigint))
    RETURNING *
), audited AS (
    INSERT INTO audit_log (actor, action, details)
    SELECT author, CASE WHEN restores IS NULL THEN 'policy.apply' ELSE 'policy.rollback' END, jsonb_build_object(
        'version', version, 'hash', hash, 'parent', parent, 'restores', restores, 'reason', reason)
    FROM added
)
SELECT version, hash, body, author, reason, parent, restores, created_at FROM added

-- name: history
-- Versions, the newest first.
SELECT version, hash, body, author, reason, parent, restores, created_at
FROM policy_versions
ORDER BY version DESC
LIMIT :limit
