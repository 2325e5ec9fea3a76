-- Says what was sent to runs under some ids. Locks nothing.
select d.run_id, d.delivery_id, d.message
from unnest(:run_ids::text[], :delivery_ids::text[]) x(run_id, delivery_id)
join {schema}.deliveries d on d.run_id = x.run_id and d.delivery_id = x.delivery_id
