-- Says of some runs whether they have ended, and how. Locks nothing.
select run_id, completed_at is not null as ended, state, case when completed_at is not null then result end as result,
  case when completed_at is not null then error end as error
from {schema}.runs where run_id = any(:run_ids::text[])
