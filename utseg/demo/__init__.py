"""What is shown of the walk on the synthetic cohort: `utseg_demo`."""
