-- Deletes the journals of a run's generations before the newest "keep", and says how many entries those had; no row if
-- there is no such run. Locks no run: a worker goes on beside it, and generations only get newer.
with r as materialized (select generation from {schema}.runs where run_id = :run_id),
gone as (
  delete from {schema}.events e using r where e.run_id = :run_id and e.generation <= r.generation - :keep::int
  returning 1)
select (select count(*) from gone) as entries from r
