-- Puts attempts that failed back into their queues, due after a delay. Only the attempt that holds the task counts.
update {schema}.tasks t set lease_owner = null, lease_until = null, run_at = now() + x.s * interval '1 second'
from (select q.task_id, y.s from {schema}.tasks q
      join json_to_recordset(:retries::json) y(id bigint, a int, s double precision)
        on y.id = q.task_id and y.a = q.attempt
      where q.lease_owner = :worker order by q.task_id for update of q) x
where t.task_id = x.task_id returning t.task_id, t.queue
