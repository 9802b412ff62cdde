"""What planners stand on: the Plan, settings that change it, and memory counted without allocating."""
