-- Lists root runs, newest first, from a place on; null stands for "any", a state is the one people see. Locks nothing.
-- What is asked of them is "coalesce" on purpose: Postgres takes that for as often true as not. With "is null or" a plan for
-- any values took it for so rare that it gathered and sorted all roots there are, instead of walking up to the limit.
select run_id from {schema}.overview
where depth = 0 and (created_at, run_id) < (coalesce(:before_at::timestamptz, 'infinity'), coalesce(:before_id::text, ''))
  and coalesce(workflow = :workflow, true) and coalesce(namespace = :namespace, true) and coalesce(state = :state, true)
  -- if failed
  and stored_state in ('failed', 'parked')
  -- end
  -- if parked
  and stored_state in ('failed', 'parked')
  -- end
order by created_at desc, run_id desc limit :limit
