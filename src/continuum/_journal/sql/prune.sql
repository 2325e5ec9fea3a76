-- Deletes whole trees whose roots have ended long enough ago and in which nothing is live: a tree in which nothing is live
-- stays so, for only live runs start children. Locks the runs in the order (depth, run_id), roots that others hold are
-- skipped, and the tasks in the order of ids. The look below a root is a subquery on purpose: as "exists" it may become a
-- walk over all runs.
with old as materialized (
  select r.run_id, r.run_id || '/' as first, r.run_id || '0' as last from {schema}.runs r
  where r.depth = 0 and r.completed_at <= now() - :older_than_s * interval '1 second'
    and (select 1 from {schema}.runs q
         where q.run_id > r.run_id || '/' and q.run_id < r.run_id || '0'
           and q.state in ('pending', 'running', 'suspended', 'parked') limit 1) is null
  order by r.completed_at, r.run_id limit :limit for update skip locked),
tree as materialized (
  select q.run_id from old join {schema}.runs q on q.run_id > old.first and q.run_id < old.last
  order by q.depth, q.run_id for update of q),
gone as materialized (select run_id from old union all select run_id from tree),
journals as (delete from {schema}.events where run_id = any(array(select run_id from gone))),
mail as (delete from {schema}.inbox where run_id = any(array(select run_id from gone))),
queued as materialized (
  select task_id from {schema}.tasks where run_id = any(array(select run_id from gone)) order by task_id for update),
jobs as (delete from {schema}.tasks where task_id = any(array(select task_id from queued))),
said as (delete from {schema}.deliveries where run_id = any(array(select run_id from gone))),
due as (delete from {schema}.cancellations where run_id = any(array(select run_id from gone))),
done as (delete from {schema}.runs where run_id = any(array(select run_id from gone)))
select count(*) as roots from old
