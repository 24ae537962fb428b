-- The policy on record: each change is a row, none is ever changed. A version that one tier tries (policy_canaries) holds
-- only once it is promoted.

-- name: lock
-- One change at a time, until its commit.
SELECT pg_advisory_xact_lock(hashtext('mdtasks.policy'))

-- name: newest
-- The version that holds with its content; no row when nothing was ever applied.
SELECT version, hash, body, author, reason, parent, restores, created_at
FROM policy_versions v
WHERE NOT EXISTS (SELECT FROM policy_canaries c WHERE c.version = v.version AND c.decision IS DISTINCT FROM 'promoted')
ORDER BY version DESC
LIMIT 1

-- name: holding_at
-- The version that held at an instant; no row when nothing had been applied.
SELECT version, hash, body, author, reason, parent, restores, created_at
FROM policy_versions v
WHERE created_at <= :at
  AND NOT EXISTS (
      SELECT FROM policy_canaries c
      WHERE c.version = v.version AND (c.decision = 'promoted' AND c.decided_at <= :at) IS NOT TRUE)
ORDER BY version DESC
LIMIT 1

-- name: newest_version
-- The number of the version that holds; 0 when nothing was ever applied.
SELECT coalesce(max(version), 0)
FROM policy_versions v
WHERE NOT EXISTS (SELECT FROM policy_canaries c WHERE c.version = v.version AND c.decision IS DISTINCT FROM 'promoted')

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
-- Versions, the newest first, with what became of those that one tier tried.
SELECT version, hash, body, author, reason, parent, restores, created_at,
       CASE WHEN c.version IS NULL THEN NULL
            WHEN c.decision IS NULL THEN 'tried by ' || c.tier
            WHEN c.decided_by = 'mdtasks' THEN c.decision || ': ' || c.why
            ELSE c.decision || ' by ' || c.decided_by || ': ' || c.why END AS canary
FROM policy_versions LEFT JOIN policy_canaries c USING (version)
ORDER BY version DESC
LIMIT :limit
