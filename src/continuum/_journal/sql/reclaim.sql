-- Takes a worker's own leases anew under a higher token. Locks the rows and fences what has not come to its lock: what
-- is read after this statement is final. Skips rows that others hold: a write of this worker that still goes on after
-- its connection broke, or somebody's open transaction, which must not keep the other runs waiting. The caller asks again
-- for those that are left out. It may also be asked again when its own answer was lost: a token that rose since counts.
update {schema}.runs r set lease_token = r.lease_token + 1
where r.run_id = any(array(
  select q.run_id from {schema}.runs q join unnest(:run_ids::text[], :tokens::bigint[]) x(run_id, token)
    on q.run_id = x.run_id and q.lease_token >= x.token
  where q.lease_owner = :worker order by q.depth, q.run_id for update of q skip locked))
returning r.run_id, r.lease_token, r.generation, r.workflow, r.version, r.depth,
  (extract(epoch from r.started_at) * 1000000)::bigint, r.input, r.suspected, r.deaths, r.retry, r.namespace, r.attributes,
  r.trace
