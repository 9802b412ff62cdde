"""What a dataset looks like, measured in one parallel pass through the reading gate: per case, overall, and per vendor, centre, ….

`model` says what is recorded, `case` measures one case, `aggregate` summarises, `warnings` looks over the whole, `make` is the pass.
"""

from utseg.fingerprint.make import make_fingerprint
from utseg.fingerprint.model import (
    Aggregate,
    CaseFingerprint,
    ChannelFigures,
    Fingerprint,
    LabelFigures,
    Spread,
    read_fingerprint,
    write_fingerprint,
)

__all__ = [
    "Aggregate",
    "CaseFingerprint",
    "ChannelFigures",
    "Fingerprint",
    "LabelFigures",
    "Spread",
    "make_fingerprint",
    "read_fingerprint",
    "write_fingerprint",
]
