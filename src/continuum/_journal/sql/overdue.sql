-- Finds runs that were asked to stop and whose time has passed, the longest first; those that have ended, too, so that
-- their rows go. Locks nothing: the cascade locks the runs, as every cascade does, and only then their rows here.
select run_id, reason from {schema}.cancellations where due_at <= now() order by due_at limit :limit
