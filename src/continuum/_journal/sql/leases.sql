-- Reads all leases of a worker. Locks nothing.
select run_id, lease_token from {schema}.runs where lease_owner = :worker
