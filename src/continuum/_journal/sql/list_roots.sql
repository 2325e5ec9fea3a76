-- Lists root runs, newest first, from a place on; null stands for "any", a state is the one people see. Locks nothing.
select run_id from {schema}.overview
where depth = 0 and (created_at, run_id) < (coalesce(:before_at::timestamptz, 'infinity'), coalesce(:before_id::text, ''))
  and (:workflow::text is null or workflow = :workflow) and (:namespace::text is null or namespace = :namespace)
  and (:state::text is null or state = :state)
  -- if failed
  and stored_state in ('failed', 'parked')
  -- end
  -- if parked
  and stored_state in ('failed', 'parked')
  -- end
order by created_at desc, run_id desc limit :limit
