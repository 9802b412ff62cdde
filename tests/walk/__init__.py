"""A walk over random datasets: made, mutated, put through the commands, and held against what nibabel alone reads."""
