-- Lists the runs below one, in the order of ids, down to a depth, from a place on. Locks nothing.
select run_id from {schema}.runs
where run_id > greatest(:run_id::text || '/', :after_id::text) and run_id < :run_id || '0' and depth <= :depth
order by run_id limit :limit
