-- Ends attempts: the task goes, its outcome comes into its run's inbox, in one commit. Only the attempt that holds the
-- task counts, and only the generation that asked for it is told. Locks the tasks' rows in the order of ids.
with x as materialized (
  select * from json_to_recordset(:reports::json) y(id bigint, a int, t text, p json)),
l as materialized (
  select q.task_id, q.run_id, q.generation, q.key from {schema}.tasks q join x on x.id = q.task_id and x.a = q.attempt
  where q.lease_owner = :worker order by q.task_id for update of q),
done as (delete from {schema}.tasks where task_id = any(array(select task_id from l))),
msg as (
  insert into {schema}.inbox (run_id, generation, type, key, payload)
  select l.run_id, l.generation, x.t, l.key, x.p from l join x on x.id = l.task_id
  join {schema}.runs r on r.run_id = l.run_id and r.generation = l.generation
    and r.state in ('pending', 'running', 'suspended', 'parked')
  order by l.task_id)
select task_id, run_id from l
