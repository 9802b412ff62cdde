"""Augmentation and the loader: what is drawn (`draw`), of which slice (`sampling`) with which other one (`partners`), how applied
(`apply`), in which batches (`loader`)."""
