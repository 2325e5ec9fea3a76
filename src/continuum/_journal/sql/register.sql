-- Announces a worker. Its id is new for each process and never used again.
insert into {schema}.workers (worker_id, lease_s, info) values (:worker, :lease_s, :info::json)
