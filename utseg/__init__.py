"""utseg: self-configuring segmentation of cardiac MR, made for hybrid Transformers and cross-vendor generalization.

Importing the package is cheap on purpose: torch and the image libraries are imported where they are needed. `load_model` is that of
`utseg.steps.model`.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load_model":
        return import_module("utseg.steps.model").load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
