-- Reads the journals of the current generations of some runs, in order. Locks nothing: only the lease holder, who
-- asks, writes there.
select e.run_id, e.seq, e.at_us, e.type, e.key, e.payload
from unnest(:run_ids::text[], :generations::int[]) x(run_id, generation)
cross join lateral (
  select * from {schema}.events e where e.run_id = x.run_id and e.generation = x.generation order by e.seq) e
