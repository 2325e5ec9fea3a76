-- Cancels all live runs below one run that lie at one depth. Locks them in the order of ids. As one statement a level:
-- each sees what the runs above, now locked, had committed before; in one statement for all levels, children escaped.
with l as materialized (
  select run_id, lease_owner from {schema}.runs
  where run_id > :first and run_id < :last and depth = :depth
    and state in ('pending', 'running', 'suspended', 'parked') order by run_id for update),
u as (
  update {schema}.runs r set state = 'cancelled', lease_owner = null, lease_token = r.lease_token + 1,
    next_wakeup_at = null, waiting_for = null, completed_at = now(), error = :error::json
  where r.run_id = any(array(select run_id from l)))
select count(*) as runs, array_agg(distinct lease_owner) filter (where lease_owner is not null) as owners from l
