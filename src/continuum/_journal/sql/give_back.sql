-- Ends what we do inside a caller's transaction: it waits for locks as long as it did before. Locks nothing.
select set_config('lock_timeout', :lock_timeout, true)
