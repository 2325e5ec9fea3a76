-- Reads every definition ever announced, its newest schemas, and how many live workers have it.
select d.kind, d.name, d.version, (array_agg(d.schemas order by d.announced_at desc))[1] as schemas,
  count(w.worker_id) as workers
from {schema}.definitions d
left join {schema}.workers w on w.worker_id = d.worker_id and w.dead_at is null
  and w.beat_at > now() - w.lease_s * interval '1 second'
group by d.kind, d.name, d.version order by d.kind, d.name, d.version
