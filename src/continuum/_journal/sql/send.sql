-- Puts messages into the inboxes of live runs, in the order given. Locks no row: the wake comes after the commit
-- (poke.sql). A run that ends meanwhile leaves the message unread, and the sweep drops it. With "all", nothing is
-- sent unless every receiver is live or has had the message. With "deliveries", a message whose id the run has had is
-- left out, and who sends one while another's open transaction does waits for that one's end. With "told" the queue of
-- notifications is locked until the commit is on disk.
with m as materialized (
  select * from rows from (json_to_recordset(:messages::json) as ("to" text, t text, k text, p json
    -- if deliveries
    , d text
    -- end
    )) with ordinality x("to", t, k, p
    -- if deliveries
    , d
    -- end
    , n)),
tgt as materialized (
  select run_id, state, state in ('pending', 'running', 'suspended', 'parked') as live
  from {schema}.runs where run_id = any(array(select "to" from m))),
fit as (
  select m.* from m join tgt on run_id = "to" where live
  -- if all
    and not exists (select 1 from m u where not exists (select 1 from tgt where run_id = u."to" and live)
    -- if deliveries
      and not exists (select 1 from {schema}.deliveries h where h.run_id = u."to" and h.delivery_id = u.d)
    -- end
    )
  -- end
  ),
-- if deliveries
new as (
  insert into {schema}.deliveries (run_id, delivery_id, message)
  select distinct on ("to", d) "to", d, split_part(t, '_', 1) || ' ' || k from fit where d is not null
  order by "to", d, n
  on conflict (run_id, delivery_id) do nothing returning run_id, delivery_id),
-- end
msg as (
  insert into {schema}.inbox (run_id, type, key, payload)
  select "to", t, k, p from fit
  -- if deliveries
  where d is null or ((fit."to", d) in (select run_id, delivery_id from new)
    and not exists (select 1 from m e where e."to" = fit."to" and e.d = fit.d and e.n < fit.n))
  -- end
  order by n)
select run_id, state, live
  -- if deliveries
  , array(select delivery_id from new where new.run_id = tgt.run_id)
  -- end
  -- if told
  , (select count(pg_notify(c, p)) from unnest(:channels::text[], :payloads::text[]) x(c, p)) as told
  -- end
from tgt
