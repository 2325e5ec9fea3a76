-- Notes how far a chore came; '' when it came to the end. Until then its next part is due at once. Locks the chore's row.
update {schema}.chores set cursor = :cursor, done_at = case when :cursor = '' then now() else '-infinity' end
where name = :name
