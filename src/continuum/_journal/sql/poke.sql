-- Arms runs that have mail and nobody to read it, and tells workers; run after the commit that sent the mail, by the
-- sender and by who gave up the lease. Whichever of the two comes later sees what the other committed. A pending run with
-- a time to begin begins no sooner: its mail waits, but for the request to stop. That is judged again by the locked row:
-- a run may have been claimed and put off in between.
--
-- Locks the runs it arms and skips those that others hold: a claimer reads the inbox after its claim, one who gives
-- up a lease pokes too, and a transaction that is rolled back leaves the run in "again", to be tried once more. Mail is
-- looked up by its run ("limit 1"): a plan made when there was hardly any would read all there is by now.
with quick as materialized (select set_config('synchronous_commit', 'off', true)),
can as materialized (
  select q.run_id, q.depth from {schema}.runs q, quick
  where q.run_id = any(:run_ids::text[]) and q.lease_owner is null and q.state in ('pending', 'running', 'suspended')
    and coalesce(q.next_wakeup_at > now(), true)
    and (select true from {schema}.inbox i where i.run_id = q.run_id
         and (q.state <> 'pending' or i.type = 'cancel_requested') limit 1)),
got as materialized (
  select q.run_id from {schema}.runs q
  where q.run_id = any(array(select run_id from can)) and q.lease_owner is null
    and (q.state in ('running', 'suspended') or q.state = 'pending' and (
      select true from {schema}.inbox i where i.run_id = q.run_id and i.type = 'cancel_requested' limit 1))
  order by q.depth, q.run_id for update skip locked),
armed as (
  update {schema}.runs r set next_wakeup_at = least(now() - r.priority * interval '1 hour', r.next_wakeup_at)
  where r.run_id = any(array(select run_id from got)) returning r.workflow, r.version)
select array(select run_id from can except select run_id from got) as again,
  array(select distinct workflow || ':' || version from armed) as ready,
  (select count(pg_notify(c, p)) from unnest(:channels::text[], :payloads::text[]) x(c, p)) as told,
  (select count(pg_notify(:ready_channel, w)) from (select distinct workflow || ':' || version as w from armed) x
   where octet_length(w) < 7000 and :ready_channel::text <> '') as called
