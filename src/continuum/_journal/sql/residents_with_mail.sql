-- Finds the runs held by a worker that have mail: what a lost NOTIFY would hide. Locks nothing.
-- "limit 1" in a lateral join: as "exists" it was replanned into a walk over everybody's mail.
select r.run_id from {schema}.runs r cross join lateral (
  select 1 from {schema}.inbox i where i.run_id = r.run_id limit 1) i
where r.lease_owner = :worker
