"""Recipes, and the loop that runs them: Plan and slices → checkpoint. Found by name through the entry points `utseg.trainers`."""
