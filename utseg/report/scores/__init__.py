"""The page about scores and training runs."""
