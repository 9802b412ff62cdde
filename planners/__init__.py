"""Rules that turn a Fingerprint into a Plan, one planner a file. Found by name through the entry points `utseg.planners`."""
