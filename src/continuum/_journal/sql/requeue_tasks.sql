-- Ends attempts whose worker was not heard of in time: back into the queue, or, when no attempt is left, an outcome of
-- type activity_failed into the run's inbox. A live lease is never touched, and a worker judges only after it was
-- connected for a lease time itself (declare_dead.sql). Locks the tasks that it changes and skips what others hold.
with may as materialized (
  select 1 from {schema}.workers
  where worker_id = :worker and dead_at is null and connected_at <= now() - lease_s * interval '1 second'),
l as materialized (
  select task_id, run_id, generation, key, name, input, attempt < max_attempts as again from {schema}.tasks
  where exists (select 1 from may) and lease_owner is not null and lease_until < now()
  order by lease_until limit :limit for update skip locked),
back as (
  update {schema}.tasks t set lease_owner = null, lease_until = null, run_at = now() - t.priority * interval '1 hour'
  from l where t.task_id = l.task_id and l.again returning t.queue),
done as (delete from {schema}.tasks where task_id = any(array(select task_id from l where not again))),
msg as (
  insert into {schema}.inbox (run_id, generation, type, key, payload)
  select l.run_id, l.generation, 'activity_failed', l.key,
    json_build_object('name', l.name, 'input', l.input, 'error', :error::json) from l
  join {schema}.runs r on r.run_id = l.run_id and r.generation = l.generation
    and r.state in ('pending', 'running', 'suspended', 'parked')
  where not l.again)
select array(select distinct queue from back) as queues, array(select distinct run_id from l where not again) as run_ids,
  (select count(*) from l) as found
