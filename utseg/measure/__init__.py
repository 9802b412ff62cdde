"""Masks without reference → volumes of every frame, ED and ES, ejection fraction, mass, and what to doubt: `measures.json` and tables."""
