"""A run and a sweep of runs: directories, reports, processes."""
