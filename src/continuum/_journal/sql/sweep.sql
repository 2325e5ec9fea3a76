-- Does a part of the sweep, unless somebody has finished one within "every" seconds: walks over the inboxes from where the
-- last part stopped, run by run, at most "budget" of them. Arms unleased runs that have mail and were never poked, because
-- their sender died between commit and poke; drops the mail of ended runs. Re-arms, never claims. Until a part comes to
-- the end the next one is due at once. The last one deletes what is left of workers long dead, unless they still have
-- leases, and announcements that others made too.
--
-- Locks the chore's row: a second sweeper waits, and goes on behind the first, or sees that it is done and gets no row.
-- Skips rows of runs and mail that others hold: the next sweep finds them.
with recursive chore as materialized (
  select cursor from {schema}.chores
  where name = 'sweep' and done_at <= now() - :every * interval '1 second' for update),
d (run_id, n) as (
  (select run_id, 1 from {schema}.inbox where run_id > (select cursor from chore) order by run_id limit 1)
  union all
  select (select i.run_id from {schema}.inbox i where i.run_id > d.run_id order by i.run_id limit 1), n + 1
  from d where d.run_id is not null and n < :budget),
j as materialized (
  select d.run_id, q.state, q.lease_owner, q.next_wakeup_at, q.run_id as found
  from d left join {schema}.runs q on q.run_id = d.run_id where d.run_id is not null),
came as materialized (
  select x.upto, x.finished from chore
  cross join (select max(run_id) as upto, count(*) < :budget as finished from j) x),
keep as (
  update {schema}.chores set done_at = case when finished then now() else '-infinity' end,
    cursor = case when finished then '' else upto end
  from came where name = 'sweep'),
arm as (
  update {schema}.runs r set next_wakeup_at = now() - r.priority * interval '1 hour'
  where r.run_id = any(array(
    select q.run_id from {schema}.runs q
    where q.run_id = any(array(select run_id from j where lease_owner is null
                               and state in ('pending', 'running', 'suspended') and coalesce(next_wakeup_at > now(), true)
                               and (state <> 'pending' or exists (select 1 from {schema}.inbox i
                                                                  where i.run_id = j.run_id
                                                                    and i.type = 'cancel_requested'))))
      and q.lease_owner is null and (q.state in ('running', 'suspended') or q.state = 'pending' and exists (
        select 1 from {schema}.inbox i where i.run_id = q.run_id and i.type = 'cancel_requested'))
    order by q.depth, q.run_id for update skip locked))
  returning r.workflow, r.version),
drop as (
  delete from {schema}.inbox i where (i.run_id, i.id) in (
    select k.run_id, k.id from {schema}.inbox k
    where k.run_id = any(array(select run_id from j
                               where found is null or state not in ('pending', 'running', 'suspended', 'parked')))
    for update skip locked)
  returning 1),
forgotten as (
  delete from {schema}.workers w
  where (select finished from came) and w.dead_at < now() - interval '1 day'
    and not exists (select 1 from {schema}.runs r where r.lease_owner = w.worker_id)),
unsaid as (
  delete from {schema}.definitions d
  where (select finished from came)
    and not exists (select 1 from {schema}.workers w where w.worker_id = d.worker_id and w.dead_at is null)
    and exists (select 1 from {schema}.definitions n where (n.kind, n.name, n.version) = (d.kind, d.name, d.version)
                and (n.announced_at, n.worker_id) > (d.announced_at, d.worker_id)))
select (select count(*) from arm) as armed, (select count(*) from drop) as dropped, finished,
  array(select distinct workflow || ':' || version from arm) as ready
from came
