-- Cancels one level of a cascade: the runs that it begins with at this depth, and all live runs at this depth below those
-- that fell before. Takes leases away and raises tokens, so that the next write of an engine is fenced. Locks them in the
-- order of ids. As one statement a level: each sees what the runs above, now locked, had committed before; in one
-- statement for all levels, children escaped. What has ended is judged by the locked row. Of those that the cascade begins
-- with the parent is told; who falls with a run above tells nobody, for that one has ended.
--
-- "errors" has one for each run that the cascade begins with here, and one for all below each that fell before; "told" is
-- what parents hear. Both are looked into by id, each as one value (joined, the value was copied for every row), and ranges
-- are walked tree by tree ("offset 0"): as plain joins they became walks over all runs.
with said as materialized (select :errors::jsonb as errors, :told::jsonb as told),
found as materialized (
  select id as run_id from unnest(:roots::text[]) id
  union all
  select q.run_id from unnest(:trees::text[]) t cross join lateral (
    select run_id from {schema}.runs
    where run_id > t || '/' and run_id < t || '0' and depth = :depth
      and state in ('pending', 'running', 'suspended', 'parked') offset 0) q),
l as materialized (
  select run_id, state, lease_owner, completed_at is null as live from {schema}.runs
  where run_id = any(array(select run_id from found)) order by run_id for update),
u as (
  update {schema}.runs r set state = 'cancelled', lease_owner = null, lease_token = r.lease_token + 1,
    next_wakeup_at = null, waiting_for = null, completed_at = now(), error = (
      select ((select errors from said) ->> a.id)::json from generate_series(r.depth + 1, 1, -1) n
      cross join lateral (select array_to_string((string_to_array(r.run_id, '/'))[1 : n], '/') as id) a
      where (select errors from said) ? a.id limit 1)
  where r.run_id = any(array(select run_id from l where live))),
tell as (
  insert into {schema}.inbox (run_id, type, key, payload)
  select p.run_id, 'child_cancelled', substr(l.run_id, length(p.run_id) + 2),
    ((select told from said) ->> l.run_id)::json
  from l join {schema}.runs p on p.run_id = left(l.run_id, -position('/' in reverse(l.run_id)))
    and p.state in ('pending', 'running', 'suspended', 'parked')
  where l.live and (select told from said) ? l.run_id order by l.run_id),
root as materialized (select run_id, state from l where (select errors from said) ? run_id)
select count(*) filter (where live) as runs,
  array_agg(distinct lease_owner) filter (where live and lease_owner is not null) as owners,
  (select array_agg(run_id order by run_id) from root) as roots,
  (select array_agg(state order by run_id) from root) as states
from l
