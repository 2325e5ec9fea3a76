-- oldest release that can work beside it: 1
--
-- Messages that were sent under an id of their sender's, so that the same id to the same run is one message, whatever
-- became of it: read, journaled in a generation that is over, answered. Only who sends with an id writes here. An
-- update's answer stays here, too: who asks under its id hears it as long as the run is kept.

create table {schema}.deliveries (
  run_id      text collate "C" not null,
  delivery_id text collate "C" not null,
  message     text collate "C" not null,                -- its kind and name: "signal paid", "update set_address"
  at          timestamptz not null default now(),
  answered_at timestamptz,
  answer      json,                                    -- of an update: {"result": …} or {"error": …}
  primary key (run_id, delivery_id),
  check ((answer is null) = (answered_at is null))
) with (autovacuum_vacuum_insert_scale_factor = 0.05);
