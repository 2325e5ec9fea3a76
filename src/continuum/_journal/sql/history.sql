-- Reads one generation's journal, or all (null), from a place on. Locks nothing.
-- The generation is a range: as "is null or" a plan for any values walked over all generations there are.
select e.generation, e.seq, e.at_us, e.type, e.key, e.payload from {schema}.events e
where e.run_id = :run_id and (e.generation, e.seq) > (:after_generation::int, :after_seq::int)
  and e.generation >= coalesce(:generation::int, 0) and e.generation <= coalesce(:generation::int, 2147483647)
order by e.generation, e.seq limit :limit
