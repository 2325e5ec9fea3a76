-- Says of one run what ends.sql says of many, in two thirds of the time. Locks nothing.
select run_id, completed_at is not null as ended, state, case when completed_at is not null then result end as result,
  case when completed_at is not null then error end as error
from {schema}.runs where run_id = :run_id
