-- Reads the mail of some runs in the order of ids. Locks nothing; what it returns is consumed by id, never by "up to":
-- a smaller id may still be on its way. Of one run no more than "limit" messages and, but for the first, "bytes".
select i.run_id, i.id, i.generation, i.type, i.key, i.payload
from unnest(:run_ids::text[]) x(run_id)
cross join lateral (
  select *, row_number() over w as place, sum(coalesce(octet_length(payload::text), 0)) over w as weight from (
    select * from {schema}.inbox i where i.run_id = x.run_id order by i.id limit :limit) i
  window w as (order by id)) i
where i.weight <= :bytes or i.place = 1
order by i.run_id, i.id
