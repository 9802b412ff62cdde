"""A synthetic multi-vendor cine cohort, to demonstrate and test on. Nothing in it was measured on a person."""
