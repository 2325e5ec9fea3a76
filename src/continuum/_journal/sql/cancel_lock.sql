-- Locks the next level of live runs of several trees, and of a commit's own runs: for a commit with several cascades, run
-- level by level before them. One after the other they would lock the first tree's lower levels before the second's
-- upper ones, against the order (depth, run_id), and deadlock with a flush of runs in both.
with tree as materialized (select t as id, t || '/' as first, t || '0' as last from unnest(:trees::text[]) t),
found as materialized (
  select run_id, depth from {schema}.runs where run_id = any(:own::text[] || :trees::text[])
  union
  select q.run_id, q.depth from tree cross join lateral (
    select run_id, depth from {schema}.runs where run_id > tree.first and run_id < tree.last
      and state in ('pending', 'running', 'suspended', 'parked') offset 0) q),
level as materialized (select min(depth) as depth from found where depth > :depth),
l as materialized (
  select run_id from {schema}.runs
  where run_id = any(array(select run_id from found where depth = (select depth from level)))
  order by run_id for update)
select (select depth from level) as depth, (select count(*) from l) as locked
