-- Reads the mail of some runs in the order of ids. Locks nothing; what it returns is consumed by id, never by "up to":
-- a smaller id may still be on its way.
select i.run_id, i.id, i.type, i.key, i.payload
from unnest(:run_ids::text[]) x(run_id)
cross join lateral (
  select * from {schema}.inbox i where i.run_id = x.run_id order by i.id limit :limit) i
