"""utseg: self-configuring segmentation of cardiac MR, made for hybrid Transformers and cross-vendor generalization.

Importing the package is cheap on purpose: torch and the image libraries are imported where they are needed.
"""

__version__ = "0.1.0"
