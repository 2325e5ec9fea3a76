-- Puts messages into the inboxes of live runs, in the order given. Locks nothing: the wake comes after the commit
-- (poke.sql). A run that ends meanwhile leaves the message unread, and the sweep drops it. With "all", nothing is
-- sent unless every receiver is live.
with m as materialized (
  select * from rows from (json_to_recordset(:messages::json) as ("to" text, t text, k text, p json))
    with ordinality x("to", t, k, p, n)),
tgt as materialized (
  select run_id, state, state in ('pending', 'running', 'suspended', 'parked') as live
  from {schema}.runs where run_id = any(array(select "to" from m))),
msg as (
  insert into {schema}.inbox (run_id, type, key, payload)
  select "to", t, k, p from m join tgt on run_id = "to" where live
  -- if all
    and not exists (select 1 from m u where not exists (select 1 from tgt where run_id = u."to" and live))
  -- end
  order by n)
select run_id, state, live from tgt
