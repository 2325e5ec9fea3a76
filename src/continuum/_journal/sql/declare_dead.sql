-- Marks workers whose lease time has passed without a beat. Locks their rows and judges the newest version, so a beat
-- that came first wins. Only a worker that has itself been connected for a lease time may judge, and only while its own
-- beats come through: else, after an outage of Postgres, everybody would take over from everybody.
with may as materialized (
  select 1 from {schema}.workers
  where worker_id = :worker and dead_at is null and connected_at <= now() - lease_s * interval '1 second'
    and beat_at > now() - lease_s * interval '1 second'),
gone as materialized (
  select w.worker_id from {schema}.workers w
  where exists (select 1 from may) and w.dead_at is null and w.worker_id <> :worker
    and w.beat_at < now() - w.lease_s * interval '1 second'
  order by w.worker_id for update skip locked)
update {schema}.workers set dead_at = now() where worker_id = any(array(select worker_id from gone))
returning worker_id
