-- Finds the highest level of live runs below a depth: where a cascade goes on, or null at its end. Locks nothing.
select min(depth) from {schema}.runs
where run_id > :first and run_id < :last and depth > :depth and state in ('pending', 'running', 'suspended', 'parked')
