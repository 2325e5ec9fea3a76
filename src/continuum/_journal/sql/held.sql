-- Says which of some runs somebody else holds locked just now: all of them while a table of ours is locked against
-- writing, by an index that is being built, for example. Locks the others, only for its own duration.
with locked as materialized (
  select 1 from pg_locks
  where granted and pid <> pg_backend_pid()
    and database = (select oid from pg_database where datname = current_database())
    and relation in ('{schema}.runs'::regclass, '{schema}.events'::regclass, '{schema}.inbox'::regclass,
                     '{schema}.tasks'::regclass)
    and mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') limit 1),
free as materialized (select run_id from {schema}.runs where run_id = any(:run_ids::text[]) for update skip locked)
select run_id from {schema}.runs
where run_id = any(:run_ids::text[]) and (run_id not in (select run_id from free) or exists (select 1 from locked))
