-- Says which database this is: its number, its name, and when our tables were made there. With "patience", no later
-- statement of the transaction waits for a lock longer than a second, or than was allowed before; what was allowed is
-- returned, to be put back (give_back.sql). Locks nothing.
with before as materialized (select current_setting('lock_timeout') as lock_timeout)
select (select oid::bigint from pg_catalog.pg_database where datname = current_database()),
  current_database()::text,
  (select (extract(epoch from min(applied_at)) * 1000000)::bigint from {schema}.migrations)
  -- if patience
  , lock_timeout,
  set_config('lock_timeout', case when lock_timeout::interval > interval '0' and lock_timeout::interval < interval '1s'
    then lock_timeout else '1s' end, true)
  -- end
from before
