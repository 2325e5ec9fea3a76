-- Deletes what is left of workers long dead, unless they still have leases, and announcements that others made too.
with w as (
  delete from {schema}.workers w where w.dead_at < now() - interval '1 day'
    and not exists (select 1 from {schema}.runs r where r.lease_owner = w.worker_id) returning worker_id)
delete from {schema}.definitions d
where not exists (select 1 from {schema}.workers w where w.worker_id = d.worker_id and w.dead_at is null)
  and exists (select 1 from {schema}.definitions n where (n.kind, n.name, n.version) = (d.kind, d.name, d.version)
              and (n.announced_at, n.worker_id) > (d.announced_at, d.worker_id))
