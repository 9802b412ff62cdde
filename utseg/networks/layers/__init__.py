"""What networks are made of: blocks, attention, normalisation, and the backbones that several networks share."""
