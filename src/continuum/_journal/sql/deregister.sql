-- Takes back a worker's announcement. Leases it still has are then nobody's, and are released by a takeover.
delete from {schema}.workers where worker_id = :worker
