"""Augmentation and the loader: what is drawn (`draw`), of which slice (`sampling`), how applied (`apply`), in which batches (`loader`)."""
