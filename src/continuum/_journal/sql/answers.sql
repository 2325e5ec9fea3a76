-- Says of some messages whether they are answered, and of their runs whether and how they ended. Locks nothing.
select x.run_id, x.delivery_id, d.answer, r.completed_at is not null as ended, r.state,
  case when d.answer is null and r.completed_at is not null then r.result end as result,
  case when d.answer is null and r.completed_at is not null then r.error end as error
from unnest(:run_ids::text[], :delivery_ids::text[]) x(run_id, delivery_id)
join {schema}.runs r on r.run_id = x.run_id
left join {schema}.deliveries d on d.run_id = x.run_id and d.delivery_id = x.delivery_id
