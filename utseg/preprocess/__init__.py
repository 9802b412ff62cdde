"""Turns raw cases into normalised slices on the planned in-plane grid, and results back onto each case's own grid.

`case` is the transformation and its inverse, `slices` what lies on disk, `splits` which subjects train and which validate, `run` the pass
over a dataset.
"""
