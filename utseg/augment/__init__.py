"""Augmentation and the loader: what is drawn (`draw`), where from (`sampling`), how applied (`apply`), in which batches (`loader`)."""
