-- Walks over the inboxes from a cursor, run by run, at most "budget" of them: arms unleased runs that have mail and were
-- never poked, because their sender died between commit and poke; drops the mail of ended runs. Re-arms, never
-- claims. Skips rows that others hold: the next sweep finds them.
with recursive d (run_id, n) as (
  (select run_id, 1 from {schema}.inbox where run_id > :cursor order by run_id limit 1)
  union all
  select (select i.run_id from {schema}.inbox i where i.run_id > d.run_id order by i.run_id limit 1), n + 1
  from d where d.run_id is not null and n < :budget),
j as materialized (
  select d.run_id, q.state, q.lease_owner, q.next_wakeup_at, q.run_id as found
  from d left join {schema}.runs q on q.run_id = d.run_id where d.run_id is not null),
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
  returning 1)
select (select count(*) from arm) as armed, (select count(*) from drop) as dropped,
  (select max(run_id) from j) as cursor, (select count(*) from j) as walked,
  array(select distinct workflow || ':' || version from arm) as ready
