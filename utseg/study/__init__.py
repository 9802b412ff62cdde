"""Studies: a small file says what to train on, what to test on and what to vary; the same walk is then taken many times and compared.

`record` is what a study leaves on disk. Nothing is trained, predicted or scored here in another way than by the commands that do one run.
"""
