-- Begins attempts of due tasks of one queue, longest due first; priority made it due hours ago. The attempt's number is
-- its fencing token. Locks what it takes and skips what others hold.
update {schema}.tasks t set lease_owner = :worker, attempt = t.attempt + 1,
  lease_until = now() + :lease_s * interval '1 second'
where t.task_id = any(array(
  select q.task_id from {schema}.tasks q
  where q.queue = :queue and q.lease_owner is null and q.run_at <= now()
    and exists (select 1 from {schema}.workers where worker_id = :worker and dead_at is null)
  order by q.run_at limit :limit for update skip locked))
returning t.task_id, t.run_id, t.generation, t.key, t.queue, t.name, t.attempt, t.max_attempts, t.input, t.options,
  t.details
