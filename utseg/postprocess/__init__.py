"""Rules on finished masks: what is kept of them and what is filled. Which of them help is decided elsewhere (`utseg.selection`)."""

from utseg.postprocess.rules import Postprocessing, Rule, check_labels, in_words, postprocess

__all__ = ["Postprocessing", "Rule", "check_labels", "in_words", "postprocess"]
