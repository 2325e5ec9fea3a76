-- Finds runs that were asked to stop and whose time has passed, the longest first, from a place on, and tells which are
-- live and held by nobody. Drops the rows here of those that have ended. Locks both for this statement alone and passes
-- over what others hold, so it waits for nobody: the cascade then locks the runs, as every cascade does.
with due as materialized (
  select c.run_id, c.reason, c.due_at, exists (
    select 1 from {schema}.runs r
    where r.run_id = c.run_id and r.state in ('pending', 'running', 'suspended', 'parked')) as live
  from {schema}.cancellations c
  where c.due_at <= now() and (c.due_at, c.run_id) > (coalesce(:after::timestamptz, '-infinity'), :after_id::text)
  order by c.due_at, c.run_id limit :limit),
free as materialized (
  select run_id from {schema}.runs
  where run_id = any(array(select run_id from due where live)) and completed_at is null for update skip locked),
over as materialized (
  select run_id from {schema}.cancellations
  where run_id = any(array(select run_id from due where not live)) for update skip locked),
drop as (delete from {schema}.cancellations where run_id = any(array(select run_id from over)))
select run_id, reason, due_at, run_id in (select run_id from free) as free from due order by due_at, run_id
