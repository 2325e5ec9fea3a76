-- Notes how far a chore came; '' when it came to the end.
update {schema}.chores set cursor = :cursor, done_at = now() where name = :name
