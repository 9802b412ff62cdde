"""Training: a plan, slices and a recipe → a run's folder with its record, checkpoints and weights."""
