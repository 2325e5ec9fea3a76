-- Prolongs attempts that are still this worker's and keeps what they reported; an attempt that does not come back is
-- cancelled, or another's. Locks its own rows in the order of ids.
update {schema}.tasks t set lease_until = now() + :lease_s * interval '1 second', details = coalesce(x.d, t.details)
from (select q.task_id, y.d from {schema}.tasks q
      join json_to_recordset(:beats::json) y(id bigint, a int, d json) on y.id = q.task_id and y.a = q.attempt
      where q.lease_owner = :worker order by q.task_id for update of q) x
where t.task_id = x.task_id returning t.task_id
