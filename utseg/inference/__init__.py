"""Class probabilities of preprocessed volumes: overlapping windows, the views of each, and how far members agree."""
