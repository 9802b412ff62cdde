"""Trained models as one file to hand on: export with what a reader has to know, import that trusts nothing.

`export_model` writes a zip of safetensors and JSON, the same bytes for the same model; `import_model` verifies all of it before a run is
put where `utseg_predict` finds it, or used without (`unpacked`). Nothing is trained, chosen or predicted here.
"""

from utseg.archive.export import export_model
from utseg.archive.install import Imported, import_model
from utseg.archive.manifest import Manifest, Terms
from utseg.archive.reading import unpacked

__all__ = ["Imported", "Manifest", "Terms", "export_model", "import_model", "unpacked"]
