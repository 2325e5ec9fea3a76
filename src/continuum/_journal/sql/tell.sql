-- Tells workers and waiting clients what happened, and does nothing else; poke.sql where there are runs to be armed, too.
-- Locks nothing but the queue of notifications, for a commit that waits for no disk.
with quick as materialized (select set_config('synchronous_commit', 'off', true))
select count(pg_notify(c, p)) as told from unnest(:channels::text[], :payloads::text[]) x(c, p), quick
