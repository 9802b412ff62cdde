"""What is known of hearts and of nothing else: names of structures, thirds of a stack, volumes, and what a mask must be like."""
