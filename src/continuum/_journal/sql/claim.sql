-- Leases due runs of the given definitions to a worker that is alive, in the order they are due, and says in how many
-- seconds the next one is if there was room for more. Without any run it gives one row that tells this alone.
--
-- Locks what it takes and skips what others hold. One index walk for each definition: "in (…) order by" cannot follow
-- the index and took ten times as long beside 100,000 ready runs. The inbox is read by a later statement, else a
-- message that commits meanwhile would be seen by nobody. The commit waits for no disk: a claim that a crash of Postgres
-- takes back leaves the run due, and what is written under it is fenced; what is durable after it makes it durable, too.
-- What is due next is only looked at, one index entry for each definition.
with quick as materialized (select set_config('synchronous_commit', 'off', true)),
due as materialized (
  select x.run_id, x.at from unnest(:workflows::text[], :versions::int[]) d(w, v) cross join lateral (
    select q.run_id, q.next_wakeup_at as at from {schema}.runs q
    where q.workflow = d.w and q.version = d.v and q.lease_owner is null and q.next_wakeup_at <= now()
      and q.state in ('pending', 'running', 'suspended')
      and exists (select 1 from {schema}.workers, quick where worker_id = :worker and dead_at is null)
    order by q.next_wakeup_at limit :limit for update skip locked) x
  limit :limit),
mine as (
  update {schema}.runs r set lease_owner = :worker, lease_token = r.lease_token + 1, state = 'running',
    waiting_for = case when r.state <> 'pending' then r.waiting_for end,
    next_wakeup_at = null, started_at = coalesce(r.started_at, now())
  where r.run_id = any(array(select run_id from due))
  returning r.run_id, r.lease_token, r.generation, r.workflow, r.version, r.depth,
    (extract(epoch from r.started_at) * 1000000)::bigint as started_us, r.input, r.suspected, r.deaths, r.retry,
    r.namespace, r.attributes, r.trace),
later as materialized (
  select extract(epoch from min(x.at) - now())::float8 as seconds
  from unnest(:workflows::text[], :versions::int[]) d(w, v) cross join lateral (
    select q.next_wakeup_at as at from {schema}.runs q
    where q.workflow = d.w and q.version = d.v and q.lease_owner is null and q.next_wakeup_at > now()
      and q.state in ('pending', 'running', 'suspended')
    order by q.next_wakeup_at limit 1) x
  where (select count(*) from due) < :limit)
select mine.*, later.seconds from later left join (mine join due using (run_id)) on true order by due.at
