-- Reads results that were too large to be copied into a message or an entry. Locks nothing: an ended run stays so.
select run_id, result from {schema}.runs where run_id = any(:run_ids::text[])
