"""Recipes: how a family of networks is trained, as values. Found by name through the entry points `utseg.trainers`."""
