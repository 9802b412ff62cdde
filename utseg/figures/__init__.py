"""Everything that is drawn: colours, outlines, windows, montages, charts. Nothing is read from a file here."""
