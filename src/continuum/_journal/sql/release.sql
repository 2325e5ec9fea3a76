-- Gives up leases so that others can claim the runs at once; only those that are still held under the given token.
-- Skips rows that others hold: a cascade takes the lease away anyway, and after anything else the caller asks again.
update {schema}.runs r set lease_owner = null, next_wakeup_at = now() - r.priority * interval '1 hour'
where r.run_id = any(array(
  select q.run_id from {schema}.runs q join unnest(:run_ids::text[], :tokens::bigint[]) x(run_id, token)
    on q.run_id = x.run_id and q.lease_token = x.token
  where q.lease_owner = :worker order by q.depth, q.run_id for update of q skip locked))
returning r.run_id, r.workflow, r.version
