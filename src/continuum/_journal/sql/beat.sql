-- A worker's sign of life, in its own row alone; no row comes back if it was declared dead. After a gap longer than the
-- lease, or a new connection, it counts as newly connected: it must watch for a lease time before it may take over.
with quick as materialized (select set_config('synchronous_commit', 'off', true)),
b as (
  update {schema}.workers w set beat_at = now(), suspect_run_id = :suspect,
    connected_at = case when :reconnected or w.beat_at < now() - w.lease_s * interval '1 second' then now()
                        else w.connected_at end
  from quick where w.worker_id = :worker and w.dead_at is null returning 1)
select exists (select 1 from b) as alive, (extract(epoch from clock_timestamp()) * 1000000)::bigint as now_us,
  (select count(*) from b) + (
    select count(*) from {schema}.workers where dead_at is null and beat_at > now() - lease_s * interval '1 second'
      and worker_id is distinct from :worker) as workers,
  (select count(*) from {schema}.workers where dead_at > now() - interval '10 minutes') as deaths,
  exists (select 1 from {schema}.workers where dead_at is null and worker_id is distinct from :worker
            and beat_at < now() - lease_s * interval '1 second') as silent,
  exists (select 1 from {schema}.cancellations where due_at <= now()) as overdue,
  exists (select 1 from {schema}.chores where name = 'sweep'
            and done_at <= now() - :sweep_every_s * interval '1 second') as unswept
