-- Says which signals a run's workflow declares: those of all who ever announced its version, and none if one of them
-- announced none, for that one takes any. Locks nothing.
select d.name, array_agg(distinct k.name) as signals
from {schema}.runs r
join {schema}.definitions d on d.kind = 'workflow' and d.name = r.workflow and d.version = r.version
left join lateral json_object_keys(d.schemas -> 'signals') k(name) on true
where r.run_id = :run_id
group by d.name having bool_and(k.name is not null)
