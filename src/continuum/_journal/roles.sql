-- Two roles for the journal in schema {schema}; run it as the schema's owner, again after every migration.
-- Grant them to the users that log in:   grant {schema}_worker to my_app;   grant {schema}_reader to grafana;
do $$ begin
  if not exists (select 1 from pg_roles where rolname = '{schema}_worker') then create role {schema}_worker nologin; end if;
  if not exists (select 1 from pg_roles where rolname = '{schema}_reader') then create role {schema}_reader nologin; end if;
end $$;

-- What a worker and a client need: rows, never tables. They connect with migrate=False or find nothing to migrate.
grant usage on schema {schema} to {schema}_worker;
grant select, insert, update, delete on
  {schema}.runs, {schema}.events, {schema}.inbox, {schema}.workers, {schema}.tasks, {schema}.definitions,
  {schema}.deliveries, {schema}.cancellations
  to {schema}_worker;
grant select, update on {schema}.chores to {schema}_worker;
grant select on {schema}.migrations, {schema}.overview to {schema}_worker;

-- What an operator or a dashboard needs.
grant usage on schema {schema} to {schema}_reader;
grant select on all tables in schema {schema} to {schema}_reader;
