"""What the commands do, as functions: one file for each command that does more than call the library once."""
