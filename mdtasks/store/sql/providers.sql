-- What is kept of providers' health: looks, transitions with their cases, pauses.

-- name: take_turn
-- One snapshot at a time, however many beats ask for it. False: another one runs.
SELECT pg_try_advisory_xact_lock(hashtext('mdtasks.provider_health'))

-- name: hold_pauses
-- One change of pauses, or copy of them to Redis, at a time: until this transaction ends.
SELECT pg_advisory_xact_lock(hashtext('mdtasks.provider_pauses'))

-- name: add_looks
-- Keep how providers stood at one moment; tells which were new: one of the same moment is kept as it was.
INSERT INTO provider_snapshots (provider, at, score, state, latency, errors, completeness, requests, policy_version)
SELECT provider, :at, score, state, latency, errors, completeness, requests, :policy_version
FROM unnest(CAST(:providers AS text[]), CAST(:scores AS double precision[]), CAST(:states AS text[]),
            CAST(:latencies AS double precision[]), CAST(:errors AS double precision[]),
            CAST(:completenesses AS double precision[]), CAST(:requests AS bigint[]))
    AS s (provider, score, state, latency, errors, completeness, requests)
ON CONFLICT (provider, at) DO NOTHING
RETURNING provider

-- name: looks
-- How a provider stood since :since, in stretches of :step_s seconds that hold a look, the oldest first: of each the look
-- at which it was worst.
SELECT DISTINCT ON (from_at) from_at, at, score, state, latency, errors, completeness
FROM (
    SELECT *, date_bin(make_interval(secs => :step_s), at, CAST('2000-01-01 00:00+00' AS timestamptz)) AS from_at
    FROM provider_snapshots WHERE provider = :provider AND at >= :since
) s
ORDER BY from_at, score, at DESC

-- name: prune_looks
-- Forget looks that are older than :before.
DELETE FROM provider_snapshots WHERE at < :before

-- name: thin_looks
-- Of looks older than :before keep one in ten minutes: that at which the provider was worst. What was thinned before
-- stays as it is, however a ten minutes' looks came to be old enough.
DELETE FROM provider_snapshots s
USING (
    SELECT provider, at, row_number() OVER (
        PARTITION BY provider, date_bin('10 minutes', at, CAST('2000-01-01 00:00+00' AS timestamptz))
        ORDER BY score, at DESC
    ) AS place
    FROM provider_snapshots WHERE at < :before
) ranked
WHERE s.provider = ranked.provider AND s.at = ranked.at AND ranked.place > 1

-- name: add_transition
-- Put a transition on record; a row: it was not there yet. Without a score, that of the newest look.
INSERT INTO provider_transitions (provider, at, kind, score, "case")
VALUES (CAST(:provider AS text), :at, :kind,
        coalesce(CAST(:score AS double precision),
                 (SELECT score FROM provider_snapshots WHERE provider = CAST(:provider AS text) ORDER BY at DESC LIMIT 1),
                 1),
        CAST(:case AS jsonb))
ON CONFLICT (provider, at, kind) DO NOTHING
RETURNING id

-- name: transitions
-- The newest transitions of a provider, or of all.
SELECT id, provider, at, kind, score, "case"
FROM provider_transitions
WHERE CAST(:provider AS text) IS NULL OR provider = :provider
ORDER BY at DESC, id DESC
LIMIT :most

-- name: prune_transitions
-- Forget transitions that are older than :before.
DELETE FROM provider_transitions WHERE at < :before

-- name: pauses
-- Who is paused.
SELECT provider, paused_by, reason, at FROM provider_pauses ORDER BY provider

-- name: add_pause
-- Leave a provider aside.
INSERT INTO provider_pauses (provider, paused_by, reason, at) VALUES (:provider, :by, :reason, :at)

-- name: drop_pause
-- Let it be asked again.
DELETE FROM provider_pauses WHERE provider = :provider
