-- Reads one generation's journal, or all (null), from a place on. Locks nothing.
select e.generation, e.seq, e.at_us, e.type, e.key, e.payload from {schema}.events e
where e.run_id = :run_id and (:generation::int is null or e.generation = :generation::int)
  and (e.generation, e.seq) > (:after_generation::int, :after_seq::int)
order by e.generation, e.seq limit :limit
