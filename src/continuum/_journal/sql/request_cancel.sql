-- Asks a live run to stop by a deadline: one message to it, and the deadline, in one commit. Asked again it gets no second
-- message, and the earlier deadline counts, as it does beside a timeout, which is the deadline of a run that nobody asked.
-- Locks the deadline's row alone, and waits for another's open transaction that has asked. A run that ends meanwhile leaves
-- the row: it goes when its time has come.
with r as materialized (
  select run_id, state, completed_at is null as live from {schema}.runs where run_id = :run_id),
due as (
  insert into {schema}.cancellations as c (run_id, due_at, reason, asks)
  select run_id, now() + :grace_s * interval '1 second', :reason, 1 from r where live
  on conflict (run_id) do update set due_at = least(c.due_at, excluded.due_at), asks = c.asks + 1,
    reason = case when c.asks = 0 then excluded.reason else c.reason end
  returning asks = 1 as new),
msg as (
  insert into {schema}.inbox (run_id, type, key, payload)
  select r.run_id, 'cancel_requested', '', :payload::json from r, due where due.new)
select state, live from r
