"""What instruments were called, and how they were followed and listed, as of any instant."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

#: Every change of a transaction bears one instant, taken under the lock that changes of the universe take turns by: who
#: asks as of an instant, and has waited for the lock, sees all of a change or nothing of it.
_INSTANT = """
create function universe_instant() returns timestamptz language plpgsql as $$
begin
    if coalesce(current_setting('mdtasks.universe_instant', true), '') = '' then
        perform pg_advisory_xact_lock(hashtext('mdtasks.universe'));
        -- A number of its own, also while nothing is written: who asks whether all is on record sees that it is open.
        perform pg_current_xact_id();
        perform set_config('mdtasks.universe_instant', clock_timestamp()::text, true);
    end if;
    return current_setting('mdtasks.universe_instant')::timestamptz;
end $$
"""

#: Triggers, so that no statement can forget it, and none that a person types. What held for no time leaves no trace.
_TRIGGERS = (
    """
    create function universe_in_turn() returns trigger language plpgsql as $$
    begin
        perform universe_instant();
        return null;
    end $$
    """,
    """
    create function symbols_known() returns trigger language plpgsql as $$
    begin
        new.known_at := universe_instant();
        return new;
    end $$
    """,
    """
    create function symbols_kept() returns trigger language plpgsql as $$
    begin
        insert into symbol_revisions (instrument_id, symbol, valid_from, valid_to, known_at, superseded_at)
        select instrument_id, symbol, valid_from, valid_to, known_at, universe_instant() from before
        where known_at < universe_instant();
        return null;
    end $$
    """,
    """
    create function instruments_kept() returns trigger language plpgsql as $$
    begin
        insert into instrument_revisions
            (instrument_id, superseded_at, mic, kind, tier, tier_source, listed_from, delisted_on)
        select b.id, universe_instant(), b.mic, b.kind, b.tier, b.tier_source, b.listed_from, b.delisted_on
        from before b join after a using (id)
        where (b.mic, b.kind, b.tier, b.listed_from, b.delisted_on)
              is distinct from (a.mic, a.kind, a.tier, a.listed_from, a.delisted_on)
          and b.created_at < universe_instant()
        on conflict do nothing;
        return null;
    end $$
    """,
    "create trigger in_turn before update or delete on symbols execute function universe_in_turn()",
    "create trigger in_turn before update or delete on instruments execute function universe_in_turn()",
    "create trigger known before update on symbols for each row execute function symbols_known()",
    """
    create trigger kept_updated after update on symbols
    referencing old table as before for each statement execute function symbols_kept()
    """,
    """
    create trigger kept_deleted after delete on symbols
    referencing old table as before for each statement execute function symbols_kept()
    """,
    """
    create trigger kept after update on instruments
    referencing old table as before new table as after for each statement execute function instruments_kept()
    """,
)

_COMMENTS = {
    "column instruments.tier_source": "who gave it its tier: version:TAG or person:NAME; null: it was added so",
    "column symbols.known_at": "since when it is on record",
    "table symbol_revisions": "what was said of symbols before something else was, or nothing",
    "table instrument_revisions": "how instruments were followed and listed before each change",
}

#: The tiers that versions gave before each other, and before a person did. What else changed is not on record: it
#: counts as having been so since the instrument is known.
_TOLD = """
insert into instrument_revisions
    (instrument_id, superseded_at, mic, kind, tier, tier_source, listed_from, delisted_on)
select i.id, c.at, i.mic, i.kind, m.tier, 'version:' || v.version_tag, i.listed_from, i.delisted_on
from (
    select version, activated_at, lead(activated_at) over held as at, lead(version) over held as next
    from universe_activations window held as (order by id)
) a
join universe_versions v using (version)
join universe_members m using (version)
join instruments i on i.id = m.instrument
left join universe_members n on n.version = a.next and n.instrument = m.instrument
cross join lateral (
    select case when a.next is not null then a.at
                when i.tier_since > a.activated_at then i.tier_since end as at
) c
where c.at is not null and m.tier is distinct from case when a.next is not null then n.tier else i.tier end
on conflict do nothing
"""

_GIVEN = """
update instruments i set tier_source = 'version:' || v.version_tag
from universe_members m join universe_versions v using (version)
where m.instrument = i.id and m.tier = i.tier
  and m.version = (select version from universe_activations order by id desc limit 1)
"""


def upgrade() -> None:
    """Two columns, two tables, and the triggers that keep them."""
    op.execute(_INSTANT)
    op.execute("alter table instruments add column tier_source text")
    op.execute("alter table symbols add column known_at timestamptz")
    op.execute("update symbols s set known_at = i.created_at from instruments i where i.id = s.instrument_id")
    op.execute("alter table symbols alter column known_at set not null")
    op.execute("alter table symbols alter column known_at set default universe_instant()")
    op.execute("alter table instruments alter column created_at set default universe_instant()")
    op.execute("alter table universe_activations alter column activated_at set default universe_instant()")
    op.execute(
        """
        create table symbol_revisions (
            instrument_id integer not null,
            symbol text not null,
            valid_from date not null,
            valid_to date not null,
            known_at timestamptz not null,
            superseded_at timestamptz not null,
            primary key (instrument_id, symbol, valid_from, known_at)
        )
        """
    )
    op.execute("create index symbol_revisions_borne on symbol_revisions (symbol, superseded_at)")
    op.execute(
        """
        create table instrument_revisions (
            instrument_id integer not null,
            superseded_at timestamptz not null,
            mic text not null,
            kind text not null,
            tier tier,
            tier_source text,
            listed_from date,
            delisted_on date,
            primary key (instrument_id, superseded_at)
        )
        """
    )
    for subject, comment in _COMMENTS.items():
        op.execute(f"comment on {subject} is '{comment}'")
    op.execute(_TOLD)
    op.execute(_GIVEN)
    for each in _TRIGGERS:
        op.execute(each)


def downgrade() -> None:
    """Without them."""
    op.execute("drop table instrument_revisions")
    op.execute("drop table symbol_revisions")
    op.execute("alter table universe_activations alter column activated_at set default clock_timestamp()")
    op.execute("alter table instruments alter column created_at set default now()")
    op.execute("alter table symbols drop column known_at")
    op.execute("alter table instruments drop column tier_source")
    for name, table in (
        ("in_turn", "symbols"),
        ("in_turn", "instruments"),
        ("known", "symbols"),
        ("kept_updated", "symbols"),
        ("kept_deleted", "symbols"),
        ("kept", "instruments"),
    ):
        op.execute(f"drop trigger {name} on {table}")
    for name in ("instruments_kept", "symbols_kept", "symbols_known", "universe_in_turn", "universe_instant"):
        op.execute(f"drop function {name}()")
