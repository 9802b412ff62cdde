"""From images and trained models to masks, each in its input's own geometry. Importing this package does not import torch."""
