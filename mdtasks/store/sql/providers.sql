-- What is kept of providers' health: looks, transitions with their cases, pauses.

-- name: take_turn
-- One snapshot at a time, however many beats ask for it. False: another one runs.
SELECT pg_try_advisory_xact_lock(hashtext('mdtasks.provider_health'))

-- name: hold_pauses
-- One change of pauses, or copy of them to Redis, at a time: until this transaction ends.
SELECT pg_advisory_xact_lock(hashtext('mdtasks.provider_pauses'))

-- name: hold_record
-- One writer of looks and transitions at a time until its commit, and none while somebody reads as of an instant: what
-- that reader does not see is dated after it.
SELECT pg_advisory_xact_lock(hashtext('mdtasks.provider_record'))

-- name: await_record
-- Wait for whoever is writing: what is committed after this is dated after it.
SELECT pg_advisory_xact_lock_shared(hashtext('mdtasks.provider_record'))

-- name: clock
SELECT clock_timestamp()

-- name: add_looks
-- Keep how providers stood at one moment; tells which were new: one of the same moment is kept as it was. Dated by the
-- server's clock, later than all before it even when that was set back.
WITH moment AS MATERIALIZED (
    SELECT greatest(clock_timestamp(), (SELECT max(known_at) FROM provider_snapshots) + interval '1 microsecond') AS at
)
INSERT INTO provider_snapshots (provider, at, score, state, latency, errors, completeness, requests, policy_version,
                                known_at)
SELECT provider, :at, score, state, latency, errors, completeness, requests, :policy_version, moment.at
FROM unnest(CAST(:providers AS text[]), CAST(:scores AS double precision[]), CAST(:states AS text[]),
            CAST(:latencies AS double precision[]), CAST(:errors AS double precision[]),
            CAST(:completenesses AS double precision[]), CAST(:requests AS bigint[]))
    AS s (provider, score, state, latency, errors, completeness, requests), moment
ON CONFLICT (provider, at) DO NOTHING
RETURNING provider

-- name: looks_by
-- The looks of :reach before an instant that were on record by then, of one provider or of all, the oldest first.
SELECT provider, at, score, state, latency, errors, completeness, requests, policy_version
FROM provider_snapshots
WHERE at <= :as_of AND at > CAST(:as_of AS timestamptz) - CAST(:reach AS interval) AND known_at <= :as_of
  AND (CAST(:provider AS text) IS NULL OR provider = :provider)
ORDER BY provider, at

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
-- Put a transition on record, dated as looks are; a row: it was not there yet. Without a score, that of the newest look.
INSERT INTO provider_transitions (provider, at, kind, score, "case", known_at)
VALUES (CAST(:provider AS text), :at, :kind,
        coalesce(CAST(:score AS double precision),
                 (SELECT score FROM provider_snapshots WHERE provider = CAST(:provider AS text) ORDER BY at DESC LIMIT 1),
                 1),
        CAST(:case AS jsonb),
        greatest(clock_timestamp(), (SELECT max(known_at) FROM provider_transitions) + interval '1 microsecond'))
ON CONFLICT (provider, at, kind) DO NOTHING
RETURNING id

-- name: transitions
-- The newest transitions of a provider, or of all.
SELECT id, provider, at, kind, score, "case"
FROM provider_transitions
WHERE CAST(:provider AS text) IS NULL OR provider = :provider
ORDER BY at DESC, id DESC
LIMIT :most

-- name: last_by
-- The last demotion or promotion, and the last pause or resumption, that were on record by an instant; of one provider or
-- of all.
SELECT DISTINCT ON (provider, kind IN ('paused', 'resumed')) provider, at, kind, score, "case"
FROM provider_transitions
WHERE at <= :as_of AND known_at <= :as_of AND (CAST(:provider AS text) IS NULL OR provider = :provider)
ORDER BY provider, kind IN ('paused', 'resumed'), at DESC, id DESC

-- name: prune_transitions
-- Forget transitions that are older than :before, but for the last ones: they say how a provider has stood since.
DELETE FROM provider_transitions t
WHERE at < :before AND EXISTS (
    SELECT FROM provider_transitions n
    WHERE n.provider = t.provider AND (n.kind IN ('paused', 'resumed')) = (t.kind IN ('paused', 'resumed'))
      AND n.at < :before AND (n.at, n.id) > (t.at, t.id)
)

-- name: pauses
-- Who is paused.
SELECT provider, paused_by, reason, at FROM provider_pauses ORDER BY provider

-- name: add_pause
-- Leave a provider aside.
INSERT INTO provider_pauses (provider, paused_by, reason, at) VALUES (:provider, :by, :reason, :at)

-- name: drop_pause
-- Let it be asked again.
DELETE FROM provider_pauses WHERE provider = :provider
