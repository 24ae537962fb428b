-- Versions of the universe, who is in them, and which held when. A version is never changed, nor is an activation.

-- name: columns
-- What a version's statements select.
SELECT v.version, v.version_tag, v.hash, v.source_meta, v.header, v.members, v.members_sha256, p.version_tag AS parent,
       v.policy_version, v.created_by, v.created_at,
       coalesce(v.version = (SELECT a.version FROM universe_activations a ORDER BY a.id DESC LIMIT 1), false) AS active
FROM universe_versions v LEFT JOIN universe_versions p ON p.version = v.parent

-- name: add
INSERT INTO universe_versions (version_tag, hash, source_meta, header, members, members_sha256, parent, policy_version,
                               created_by)
VALUES (:version_tag, :hash, CAST(:source_meta AS jsonb), :header, :members, :members_sha256, CAST(:parent AS bigint),
        :policy_version, :created_by)
RETURNING version

-- name: add_members
INSERT INTO universe_members (version, instrument, symbol, tier, rank, score)
SELECT :version, m.instrument, m.symbol, m.tier, m.rank, m.score
FROM unnest(CAST(:instruments AS integer[]), CAST(:symbols AS text[]), CAST(:tiers AS tier[]), CAST(:ranks AS integer[]),
            CAST(:scores AS bigint[])) AS m (instrument, symbol, tier, rank, score)

-- name: members
-- Who is in a version, by rank; of one tier or of all.
SELECT instrument, symbol, tier, rank, score FROM universe_members
WHERE version = :version AND (CAST(:tier AS tier) IS NULL OR tier = CAST(:tier AS tier))
ORDER BY rank, instrument
LIMIT CAST(:limit AS integer)

-- name: tier_counts
SELECT tier, count(*) FROM universe_members WHERE version = :version GROUP BY tier

-- name: active
-- Which version held at a moment; none before the first.
SELECT version FROM universe_activations WHERE activated_at <= coalesce(CAST(:at AS timestamptz), 'infinity')
ORDER BY id DESC LIMIT 1

-- name: activate
INSERT INTO universe_activations (version, actor, reason, counts)
VALUES (:version, :actor, :reason, CAST(:counts AS jsonb))
RETURNING id, activated_at

-- name: audit
INSERT INTO audit_log (actor, action, details) VALUES (:actor, 'universe.activate', CAST(:details AS jsonb))

-- name: activations
-- Which version held from when on, the newest first.
SELECT a.id, v.version_tag, a.actor, a.reason, a.activated_at, a.counts
FROM universe_activations a JOIN universe_versions v USING (version)
ORDER BY a.id DESC LIMIT :limit

-- name: move
-- Give the instruments of a version their tiers. Says what each had and has.
UPDATE instruments i SET tier = m.tier, tier_since = universe_instant(), tier_source = 'version:' || CAST(:tag AS text)
FROM universe_members m JOIN instruments o ON o.id = m.instrument
WHERE m.version = :version AND i.id = m.instrument AND i.tier IS DISTINCT FROM m.tier
RETURNING i.id, o.tier AS before, m.tier AS after

-- name: leave
-- Those that were in the version that held, and are not in this one, are followed no more. (A set is taken from a set:
-- of a version just made there are no statistics yet, and an anti-join would look through it once for each member.)
WITH gone AS MATERIALIZED (
    SELECT instrument FROM universe_members WHERE version = CAST(:held AS bigint)
    EXCEPT SELECT instrument FROM universe_members WHERE version = :version
)
UPDATE instruments i SET tier = NULL, tier_since = universe_instant(), tier_source = 'version:' || CAST(:tag AS text)
FROM gone g JOIN instruments o ON o.id = g.instrument
WHERE i.id = g.instrument AND i.tier IS NOT NULL
RETURNING i.id, o.tier AS before

-- name: move_jobs
-- Backfills that wait in PostgreSQL in the tier that their instrument had go on in the one that it has now, those of one
-- that left as T2. What somebody is just moving (it goes out, is cancelled, ends) stays in its tier and ends there, as do
-- all that have a message or run: nothing waits for a lock, nothing is lost.
UPDATE backfill_jobs j SET tier = coalesce(i.tier, 'T2'), updated_at = now()
FROM instruments i
WHERE i.id = j.instrument_id AND j.tier <> coalesce(i.tier, 'T2') AND j.id IN (
    SELECT w.id
    FROM unnest(CAST(:instruments AS integer[]), CAST(:tiers AS tier[])) AS c (id, tier)
    JOIN backfill_jobs w ON w.instrument_id = c.id AND w.tier = c.tier AND w.status = 'deferred'
    FOR UPDATE OF w SKIP LOCKED
)

-- name: staying_jobs
-- Backfills of these instruments that end where they are: in the queue of the tier that they were sent in, or running.
SELECT count(*)
FROM unnest(CAST(:instruments AS integer[]), CAST(:tiers AS tier[])) AS c (id, tier)
JOIN backfill_jobs j ON j.instrument_id = c.id AND j.tier = c.tier AND j.status IN ('deferred', 'queued', 'running')
JOIN instruments i ON i.id = c.id AND coalesce(i.tier, 'T2') <> c.tier

-- name: withdraw_gaps
-- What those lack that are followed no more is missed by nobody.
UPDATE gaps SET closed_at = clock_timestamp(), outcome = 'withdrawn'
WHERE closed_at IS NULL AND instrument_id = ANY (CAST(:instruments AS integer[]))
