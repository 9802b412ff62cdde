"""The pages of `utseg_measure`: one for each cine, with its curve and contours, and one for all of them."""
