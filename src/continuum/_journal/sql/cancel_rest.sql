-- Drops the mail and the tasks of a cancelled run and of all runs below it: the end of a cascade, when every flush that
-- it waited for is visible. In the statements that cancel, what such a flush had written was not seen and stayed. Locks
-- the tasks in the order of ids, as workers do that renew and report them.
with jobs as materialized (
  select task_id from {schema}.tasks
  where run_id = :run_id or (run_id > :first and run_id < :last) order by task_id for update),
drop as (delete from {schema}.tasks where task_id = any(array(select task_id from jobs))),
mail as (delete from {schema}.inbox where run_id = :run_id or (run_id > :first and run_id < :last))
select count(*) as tasks from jobs
