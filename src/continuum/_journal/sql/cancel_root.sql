-- Cancels the run that was asked for; level 0 of a cascade. Locks its row, takes its lease away and raises its token,
-- so that its engine's next write is fenced. Tells its parent. The levels below follow, each a statement of its own.
with l as materialized (
  select run_id, depth, state, lease_owner from {schema}.runs where run_id = :run_id for update),
u as (
  update {schema}.runs r set state = 'cancelled', lease_owner = null, lease_token = r.lease_token + 1,
    next_wakeup_at = null, waiting_for = null, completed_at = now(), error = :error::json
  from l where r.run_id = l.run_id and l.state in ('pending', 'running', 'suspended', 'parked') returning r.run_id),
tell as (
  insert into {schema}.inbox (run_id, type, key, payload)
  select :parent::text, 'child_cancelled', :key::text, :message::json
  from u where exists (select 1 from {schema}.runs p
                       where p.run_id = :parent and p.state in ('pending', 'running', 'suspended', 'parked')))
select l.depth, l.state, l.lease_owner, exists (select 1 from u) as done from l
