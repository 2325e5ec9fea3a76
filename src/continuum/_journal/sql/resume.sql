-- Makes a parked run claimable again. Locks its row.
update {schema}.runs set state = 'suspended', next_wakeup_at = now() - priority * interval '1 hour', error = null,
  deaths = 0, suspected = false
where run_id = :run_id and state = 'parked' returning run_id, workflow, version
