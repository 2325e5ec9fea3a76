-- Says which of some runs somebody else holds locked just now. Locks the others, only for its own duration.
select run_id from {schema}.runs where run_id = any(:run_ids::text[])
except
select run_id from (select run_id from {schema}.runs where run_id = any(:run_ids::text[]) for update skip locked) free
