"""For checkouts whose entry points are from before `trainers.utnet`, until they are installed again."""

from trainers.utnet import recipe as train

__all__ = ["train"]
