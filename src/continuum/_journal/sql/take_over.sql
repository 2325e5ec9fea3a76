-- Releases up to "limit" runs whose owner is not alive: declared dead, or gone without a trace. The token rises, so a
-- dead worker that wakes writes nothing; the runs are due, to be claimed by who has their code, and suspected. Only
-- the run that its owner had named is charged with the death; at "charges" deaths it is parked. Locks in the order
-- (depth, run_id) and skips rows in use: the next call finds them. They are looked up by an array of their ids:
-- joined alone, a plan for any limit walked over all runs. It says, too, whether this worker has any lease, and
-- whether another one is silent, to be judged by declare_dead.sql.
with recursive owners (owner) as (
  (select lease_owner from {schema}.runs where lease_owner is not null order by lease_owner limit 1)
  union all
  select (select r.lease_owner from {schema}.runs r where r.lease_owner > o.owner order by r.lease_owner limit 1)
  from owners o where o.owner is not null),
gone as materialized (
  select owner from owners
  where owner is not null
    and not exists (select 1 from {schema}.workers w where w.worker_id = owner and w.dead_at is null)),
l as materialized (
  select q.run_id, (exists (select 1 from {schema}.workers w
                            where w.worker_id = q.lease_owner and w.suspect_run_id = q.run_id))::int as charged
  from {schema}.runs q where q.lease_owner = any(array(select owner from gone))
  order by q.depth, q.run_id limit :limit for update of q skip locked),
u as (
  update {schema}.runs r set lease_owner = null, lease_token = r.lease_token + 1, suspected = true,
    deaths = r.deaths + l.charged,
    state = case when r.deaths + l.charged >= :charges then 'parked' else r.state end,
    error = case when r.deaths + l.charged >= :charges then :error::json end,
    next_wakeup_at = case when r.deaths + l.charged < :charges then now() - r.priority * interval '1 hour' end
  from l where r.run_id = any(array(select run_id from l)) and r.run_id = l.run_id
  returning r.run_id, r.state, r.workflow, r.version)
select (select count(*) from u) as released, array(select run_id from u where state = 'parked') as parked,
  array(select distinct workflow || ':' || version from u where state <> 'parked') as ready,
  exists (select 1 from owners where owner = :worker) as held,
  exists (select 1 from {schema}.workers where dead_at is null and worker_id is distinct from :worker
            and beat_at < now() - lease_s * interval '1 second') as silent
