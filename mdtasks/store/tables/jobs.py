"""Requests, jobs and their attempts, dead letters, and the record of who changed what."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSTZRANGE, UUID

from mdtasks.store.tables.types import bar_interval, job_status, metadata, tier, utc

requests = Table(
    "requests",
    metadata,
    Column("id", UUID(as_uuid=False), primary_key=True, server_default=func.gen_random_uuid()),
    Column("requested_by", Text, nullable=False),
    Column("spec", JSONB, nullable=False, comment="what was asked for, as it was asked"),
    Column("created_at", utc, nullable=False, server_default=func.now()),
    # The newest are listed, the oldest go.
    Index("requests_created", "created_at"),
)

backfill_jobs = Table(
    "backfill_jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("instrument_id", Integer, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("interval", bar_interval, nullable=False),
    Column("window", TSTZRANGE, nullable=False),
    Column("tier", tier, nullable=False),
    Column("provider_hint", Text),
    Column("request_id", UUID(as_uuid=False), comment="who asked for it first; later ones are in request_jobs"),
    Column("status", job_status, nullable=False),
    Column(
        "attempts",
        Integer,
        nullable=False,
        server_default="0",
        comment="claims in this life; a requeue starts afresh",
    ),
    Column("max_attempts", Integer, nullable=False),
    Column("policy_version", BigInteger, comment="that it was asked for under; each attempt bears its own"),
    Column(
        "fence",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="counts every claim ever: the fencing token",
    ),
    Column("attempt_id", BigInteger, comment="the running attempt"),
    Column("lease_until", utc),
    Column("not_before", utc, comment="a deferred job may go out from then on; null: now"),
    Column("queued_at", utc),
    Column("bars", Integer, nullable=False, server_default="0"),
    Column("last_error", Text),
    Column("last_error_class", Text),
    Column("created_at", utc, nullable=False, server_default=func.now()),
    Column("updated_at", utc, nullable=False, server_default=func.now()),
    # The dispatcher walks the first in its own order; what pauses after a failure joins it when its time has come.
    Index(
        "backfill_jobs_waiting",
        "tier",
        text('upper("window") DESC'),
        "id",
        postgresql_where=text("status = 'deferred' and not_before is null"),
    ),
    Index(
        "backfill_jobs_pausing",
        "tier",
        "not_before",
        postgresql_where=text("status = 'deferred' and not_before is not null"),
    ),
    Index(
        "backfill_jobs_active",
        "instrument_id",
        "interval",
        postgresql_where=text("status in ('deferred', 'queued', 'running')"),
    ),
    Index("backfill_jobs_lease", "lease_until", postgresql_where=text("status = 'running'")),
    Index("backfill_jobs_request", "request_id", postgresql_where=text("request_id is not null")),
    Index("backfill_jobs_queued", "queued_at", postgresql_where=text("status = 'queued'")),
    Index("backfill_jobs_failed", "updated_at", postgresql_where=text("status = 'failed'")),
    Index("backfill_jobs_over", "updated_at", postgresql_where=text("status in ('done', 'cancelled')")),
    Index("backfill_jobs_stuck", "instrument_id", "interval", postgresql_where=text("status = 'failed'")),
)

request_jobs = Table(
    "request_jobs",
    metadata,
    Column("request_id", UUID(as_uuid=False), ForeignKey("requests.id", ondelete="CASCADE"), primary_key=True),
    Column("job_id", Text, primary_key=True),
    Index("request_jobs_job", "job_id"),
)

job_attempts = Table(
    "job_attempts",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("job_id", Text, nullable=False),
    Column("job_type", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("worker", Text, nullable=False, comment="node name of the worker process"),
    Column("provider", Text),
    Column("started_at", utc, nullable=False, server_default=func.now()),
    Column("ended_at", utc),
    Column("outcome", Text, comment="done, retry, failed, lost, released, held; null: running"),
    Column("error_class", Text),
    Column("message", Text),
    Column("bars", Integer, nullable=False, server_default="0"),
    Column("policy_version", BigInteger, comment="0: none was applied yet"),
    Column("route", JSONB, comment="providers in the order asked: what each said, or why it was not asked in its turn"),
    Index("job_attempts_job", "job_id", "id"),
    Index("job_attempts_running", "worker", postgresql_where=text("ended_at is null")),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Text, primary_key=True, comment="derived from the envelope: recording twice changes nothing"),
    Column("kind", Text, nullable=False, comment="backfill, bars_fetch, quotes_fetch, poison, or action: a finding"),
    Column("job_id", Text),
    Column("task", Text),
    Column("queue", Text),
    Column("tier", tier),
    Column("symbol", Text),
    Column("interval", bar_interval),
    Column("window", TSTZRANGE),
    Column("provider", Text),
    Column("error_class", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("traceback", Text),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("policy_version", BigInteger),
    Column("envelope", Text, nullable=False, comment="the message as it was on the wire"),
    Column(
        "state",
        Text,
        nullable=False,
        server_default="open",
        comment="open, requeued, or resolved: what was missing came by another way",
    ),
    Column("requeued_by", Text),
    Column("died_at", utc, nullable=False, server_default=func.now()),
    Column("updated_at", utc, nullable=False, server_default=func.now()),
    Index("dead_letters_open", "died_at", postgresql_where=text("state = 'open'")),
    Index("dead_letters_job", "job_id"),
)

requeue_plans = Table(
    "requeue_plans",
    metadata,
    Column("id", UUID(as_uuid=False), primary_key=True, server_default=func.gen_random_uuid()),
    Column("planned_by", Text, nullable=False),
    Column("filter", JSONB, nullable=False),
    Column("letter_ids", JSONB, nullable=False, comment="the frozen set"),
    Column("created_at", utc, nullable=False, server_default=func.now()),
    Column("executed_at", utc),
    Column("result", JSONB),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("at", utc, nullable=False, server_default=func.now()),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("details", JSONB, nullable=False),
)
