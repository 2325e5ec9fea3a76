-- Writes down which definitions a worker has.
insert into {schema}.definitions (kind, name, version, worker_id, schemas)
select kind, name, version, :worker, schemas
from json_to_recordset(:definitions::json) x(kind text, name text, version int, schemas json)
on conflict (kind, name, version, worker_id) do update set schemas = excluded.schemas, announced_at = now()
