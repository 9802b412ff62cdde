"""What a study found: its scores as arrays, differences between sides, and what a report shows of them."""
