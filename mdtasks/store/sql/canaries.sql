-- Canaries: policies that the workers of one tier try before they hold everywhere. One is open at most.

-- name: open
-- The canary that is being tried; no row when there is none.
SELECT version, tier, watch_s, began_at, decision, decided_at, decided_by, why, evidence
FROM policy_canaries
WHERE decision IS NULL

-- name: one
-- The trial of a version; no row when it was applied without one.
SELECT version, tier, watch_s, began_at, decision, decided_at, decided_by, why, evidence
FROM policy_canaries
WHERE version = :version

-- name: begin
INSERT INTO policy_canaries (version, tier, watch_s)
VALUES (:version, CAST(:tier AS tier), :watch_s)
RETURNING version, tier, watch_s, began_at, decision, decided_at, decided_by, why, evidence

-- name: decide
-- End a trial, once, with an audit row; no row when it had ended.
WITH decided AS (
    UPDATE policy_canaries
    SET decision = :decision, decided_at = now(), decided_by = :decided_by, why = :why,
        evidence = CAST(:evidence AS jsonb)
    WHERE version = :version AND decision IS NULL
    RETURNING *
), audited AS (
    INSERT INTO audit_log (actor, action, details)
    SELECT decided_by, 'policy.canary.' || decision,
           jsonb_build_object('version', version, 'tier', tier, 'why', why, 'evidence', evidence)
    FROM decided
)
SELECT version, tier, watch_s, began_at, decision, decided_at, decided_by, why, evidence FROM decided

-- name: tallies
-- Attempts that ended under :version, and under others since as long before it began as it lasts; only the newest
-- attempts are looked at, by id. What a person let go of is no error.
SELECT a.policy_version = :version AS under, count(*) AS attempts,
       count(*) FILTER (WHERE a.outcome IN ('failed', 'retry', 'lost', 'held')) AS errors
FROM job_attempts a, (SELECT began_at, now() - began_at AS lasted FROM policy_canaries WHERE version = :version) c
WHERE a.id > (SELECT coalesce(max(id), 0) - 50000 FROM job_attempts)
  AND a.ended_at IS NOT NULL AND a.outcome <> 'released' AND a.policy_version IS NOT NULL
  AND a.started_at > CASE WHEN a.policy_version = :version THEN c.began_at ELSE c.began_at - c.lasted END
GROUP BY 1
