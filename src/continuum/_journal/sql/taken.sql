-- Reads what says whether the run that has an id is the one that was to be started. Locks nothing.
select workflow, input from {schema}.runs where run_id = :run_id
