-- Finds the highest level of live runs below a depth in some trees: where a cascade goes on, or null at its end. Locks
-- nothing.
select min(q.depth) from unnest(:trees::text[]) t cross join lateral (
  select min(depth) as depth from {schema}.runs
  where run_id > t || '/' and run_id < t || '0' and depth > :depth
    and state in ('pending', 'running', 'suspended', 'parked')) q
