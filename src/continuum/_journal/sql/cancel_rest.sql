-- Drops the mail, the tasks and the deadlines of cancelled runs and of all runs below them: the end of a cascade, when
-- every flush that it waited for is visible. In the statements that cancel, what such a flush had written was not seen and
-- stayed. Locks the tasks in the order of ids, as workers do that renew and report them. The ids of a tree are its own and
-- a range, each looked up in an index: ids between, such as "a-1" of the tree "a", are others'. Messages are deleted where
-- they lie (ctid): nobody ever updates one.
with tree as materialized (select t as id, t || '/' as first, t || '0' as last from unnest(:trees::text[]) t),
jobs as materialized (
  select task_id from {schema}.tasks where task_id = any(array(
    select q.task_id from tree cross join lateral (
      select task_id from {schema}.tasks where run_id = tree.id
      union all select task_id from {schema}.tasks where run_id > tree.first and run_id < tree.last) q))
  order by task_id for update),
drop as (delete from {schema}.tasks where task_id = any(array(select task_id from jobs))),
mail as (
  delete from {schema}.inbox where ctid = any(array(
    select q.ctid from tree cross join lateral (
      select ctid from {schema}.inbox where run_id = tree.id
      union all select ctid from {schema}.inbox where run_id > tree.first and run_id < tree.last) q))),
due as (
  delete from {schema}.cancellations where run_id = any(array(
    select q.run_id from tree cross join lateral (
      select run_id from {schema}.cancellations where run_id = tree.id
      union all select run_id from {schema}.cancellations where run_id > tree.first and run_id < tree.last) q)))
select count(*) as tasks from jobs
