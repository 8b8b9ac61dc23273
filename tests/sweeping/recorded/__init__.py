"""Long runs of sweeps whose results are committed: costs of a large ledger, kills, restarts of PostgreSQL."""
