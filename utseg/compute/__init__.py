"""Parallel work: `pool` and `cluster` are executors (processes here, workers of Dask), `children` starts commands as processes."""
