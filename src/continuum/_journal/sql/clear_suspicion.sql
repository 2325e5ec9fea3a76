-- Forgives suspects of a worker's own that came through: the next death is not their fault. Skips rows in use: a commit
-- of theirs is under way, and they may well stay suspects until the next time.
update {schema}.runs r set suspected = false, deaths = 0
where r.run_id = any(array(
  select q.run_id from {schema}.runs q
  where q.run_id = any(:run_ids::text[]) and q.lease_owner = :worker and (q.suspected or q.deaths > 0)
  order by q.depth, q.run_id for update of q skip locked))
returning r.run_id
