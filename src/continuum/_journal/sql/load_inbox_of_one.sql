-- Reads the mail of one run as load_inbox.sql does that of many, in two thirds of the time. Locks nothing.
select run_id, id, generation, type, key, payload
from (
  select *, row_number() over w as place, sum(coalesce(octet_length(payload::text), 0)) over w as weight from (
    select * from {schema}.inbox where run_id = :run_id order by id limit :limit) i
  window w as (order by id)) i
where weight <= :bytes or place = 1
order by id
