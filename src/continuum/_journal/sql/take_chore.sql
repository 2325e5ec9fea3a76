-- Gives a chore to whoever asks first after it was last done "every" seconds ago. Locks the chore's row; a second
-- asker waits, sees it done and gets nothing.
update {schema}.chores set done_at = now()
where name = :name and done_at <= now() - :every * interval '1 second' returning cursor
