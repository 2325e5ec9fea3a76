-- Lists the live children of a run that are to close with it, by the commit that ends it: only the run starts children,
-- and its row is locked, so no other comes. Locks nothing; the cascade judges them again.
select run_id from {schema}.runs
where run_id > :run_id::text || '/' and run_id < :run_id || '0' and depth = :depth and on_parent_close = 'cancel'
  and state in ('pending', 'running', 'suspended', 'parked')
order by run_id
