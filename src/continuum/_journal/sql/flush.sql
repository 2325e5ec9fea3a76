-- Writes the commits of many runs: each whole, or nothing of it.
--
-- Locks the rows of the committing runs and no other runs (of their messages' answers it writes those of these runs
-- alone), in one pass in the order (depth, run_id), the order in which a
-- cascade locks too. A run is judged by the owner and token of its locked row, which is the newest version even
-- after a wait. All else that is read is as it was before the wait, so nothing is decided on it: targets of messages
-- are only looked up, and who wakes them is settled after the commit (poke.sql). One update a row at most: of two in
-- one statement, one would be lost. A commit that consumes a message which is not there is stale and void: under the
-- same lease nobody else takes messages, so this very worker has journaled it before. A part between "if" and "end" is
-- left out when no commit of the batch needs it. A deadline that a parent leaves behind waits for the row of a request to
-- stop that is being written, and for no other. How a run stands afterwards is its "op": n as before, p passivated,
-- t ended, d parked, c in its next generation, w waiting for that one to begin.
--
-- What most commits have, a lease and entries, comes as arrays, a column each: as JSON it took a third of the statement's
-- time. What few have comes as JSON. "standing" is left out of a batch in which nobody changes how it stands and nobody
-- falls with another, "mates" of one in which nobody does the latter. On an idle machine each node of the plan is felt.
-- "(… in …) is true" is looked up in a hash; a join of the same two, which are both thought to be small, is a loop. And
-- mail and tasks are looked up one by one ("limit 1"), for whoever counts those tables finds them nearly empty: a plan
-- that joins them reads them as a whole, also when a hundred thousand messages wait.
with o as materialized (select * from unnest(:runs::text[], :tokens::bigint[]) o(r, tok)),
-- if standing
s as materialized (
  select * from json_to_recordset(:standing::json) x(r text, grp int, op text, st text, at bigint, wf text,
                                                      res json, err json, v int, pub json, say bool)),
-- end
timeout as materialized (select set_config('lock_timeout', :lock_timeout, true)),
l as materialized (
  select run_id, lease_owner, lease_token, namespace, attributes, trace from {schema}.runs
  where run_id = any(array(select r from o, timeout)) order by depth, run_id for update),
fenced as materialized (
  select r from o
  where not exists (select 1 from l where l.run_id = o.r and l.lease_owner = :worker and l.lease_token = o.tok)),
-- if consumed
c0 as materialized (select * from json_to_recordset(:consumed::json) x(r text, id bigint)),
stale as materialized (
  select distinct r from c0
  where (select 1 from {schema}.inbox i where i.run_id = c0.r and i.id = c0.id) is null
    and r not in (select r from fenced)),
-- end
-- if standing mates
bad as materialized (
  select r from fenced
  -- if consumed
  union all select r from stale
  -- end
  ),
fallen as materialized (
  select mate.r from s b join s mate on mate.grp = b.grp
  where b.r in (select r from bad) and mate.r not in (select r from bad)),
-- end
ok as materialized (
  select r from o where r not in (select r from fenced)
  -- if consumed
    and r not in (select r from stale)
  -- end
  -- if standing mates
    and r not in (select r from fallen)
  -- end
  )
-- if children
, k0 as materialized (
  select * from json_to_recordset(:children::json) x(r text, id text, wf text, v int, d smallint, inp json, mine bool,
                                                      close text, pri smallint, attr jsonb, retry json)),
kid as (
  insert into {schema}.runs (run_id, depth, workflow, version, input, state, started_at, next_wakeup_at, lease_owner,
                             lease_token, on_parent_close, priority, namespace, attributes, trace, retry)
  select k.id, k.d, k.wf, k.v, coalesce(k.inp, 'null'), case when k.mine then 'running' else 'pending' end,
         case when k.mine then now() end, case when not k.mine then now() - k.pri * interval '1 hour' end,
         case when k.mine then :worker end, k.mine::int, k.close, k.pri, l.namespace,
         case when k.attr is null then l.attributes else coalesce(l.attributes, '{}') || k.attr end, l.trace, k.retry
  from k0 k join ok on ok.r = k.r join l on l.run_id = k.r order by k.id
  on conflict (run_id) do nothing returning run_id)
-- end
-- if messages
, m0 as materialized (
  select * from rows from (json_to_recordset(:messages::json) as (r text, "to" text, t text, k text, p json))
    with ordinality x(r, "to", t, k, p, n)),
tgt as materialized (
  select run_id, lease_owner from {schema}.runs
  where run_id = any(array(select "to" from m0)) and state in ('pending', 'running', 'suspended', 'parked')
  -- if children
  union all select run_id, :worker from kid
  -- end
  ),
sent as materialized (select * from m0 where (r in (select r from ok)) is true),
m as materialized (select sent.*, tgt.lease_owner from sent join tgt on tgt.run_id = sent."to"),
msg as (insert into {schema}.inbox (run_id, type, key, payload) select "to", t, k, p from m order by n)
-- end
-- if entries
, ev as (
  insert into {schema}.events (run_id, generation, seq, at_us, type, key, payload)
  select r, g, n, a, t, k, p
  from unnest(:entry_runs::text[], :generations::int[], :seqs::int[], :times::bigint[], :types::text[], :keys::text[],
              :entry_payloads::json[]) x(r, g, n, a, t, k, p) join ok using (r))
-- end
-- if consumed
, eat as (
  delete from {schema}.inbox where ctid = any(array(
    select x.ctid from c0 cross join lateral (
      select i.ctid from {schema}.inbox i where i.run_id = c0.r and i.id = c0.id limit 1) x
    where (c0.r in (select r from ok)) is true)))
-- end
-- if tasks
, job as (
  insert into {schema}.tasks (run_id, generation, key, queue, name, input, max_attempts, priority, options, run_at)
  select r, g, k, q, n, coalesce(p, 'null'), max, pri, opt, now() - pri * interval '1 hour'
  from json_to_recordset(:tasks::json)
    x(r text, g int, k text, q text, n text, p json, max int, pri smallint, opt json) join ok using (r)
  on conflict (run_id, generation, key) do nothing)
-- end
-- if discarded
, drop as (
  delete from {schema}.tasks where task_id = any(array(
    select task_id from {schema}.tasks where task_id = any(array(
      select q.task_id from json_to_recordset(:discarded::json) x(r text, g int, k text) cross join lateral (
        select q.task_id from {schema}.tasks q
        where q.run_id = x.r and q.generation = x.g and q.key = x.k limit 1) q
      where (x.r in (select r from ok)) is true))
    order by task_id for update)))
-- end
-- if answers
, ans as (
  update {schema}.deliveries d set answer = a.p, answered_at = now()
  from json_to_recordset(:answers::json) a(r text, d text, p json) join ok using (r)
  where d.run_id = a.r and d.delivery_id = a.d and d.answer is null)
-- end
-- if deadlines
, due as (
  insert into {schema}.cancellations as c (run_id, due_at, reason, asks)
  select x.id, timestamptz 'epoch' + min(x.at) * interval '1 microsecond', 'timeout', 0
  from json_to_recordset(:deadlines::json) x(r text, id text, at bigint) join ok using (r) group by x.id order by x.id
  on conflict (run_id) do update set due_at = least(c.due_at, excluded.due_at))
-- end
-- if standing
, up as (
  update {schema}.runs r set
    state = case s.op when 't' then s.st when 'p' then 'suspended' when 'd' then 'parked' when 'w' then 'pending'
      else r.state end,
    result = s.res, error = s.err, waiting_for = s.wf,
    published = case when s.say then coalesce(s.pub, 'null') else r.published end,
    completed_at = case s.op when 't' then now() end,
    generation = r.generation + (s.op in ('c', 'w'))::int, version = coalesce(s.v, r.version),
    lease_owner = case when s.op in ('n', 'c') then r.lease_owner end,
    next_wakeup_at = case when s.op in ('p', 'w') then timestamptz 'epoch' + s.at * interval '1 microsecond' end,
    suspected = r.suspected and s.op = 'n', deaths = case s.op when 'n' then r.deaths else 0 end
  from s join ok using (r) where r.run_id = s.r and (s.op <> 'n' or s.say))
-- end
select (extract(epoch from now()) * 1000000)::bigint as at_us,
  array(select r from fenced) as fenced,
  -- if standing mates
  array(select distinct r from fallen) as undone,
  -- end
  -- if consumed
  array(select r from stale) as stale,
  -- end
  -- if children
  array(select k.id from k0 k join ok using (r) where k.id not in (select run_id from kid)) as existed,
  -- end
  -- if messages
  array(select "to" from sent where "to" not in (select run_id from tgt)) as undelivered,
  array(select distinct "to" from m where lease_owner = :worker) as near,
  array(select distinct "to" from m where lease_owner is distinct from :worker) as far,
  -- end
  -- if told
  (select count(pg_notify(c, p)) from unnest(:channels::text[], :payloads::text[]) x(c, p)
   where exists (select 1 from ok)) as told,
  -- end
  null as nothing  -- so that every part above may end in a comma
