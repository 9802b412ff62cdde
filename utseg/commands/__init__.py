"""The command-line programs: each parses its arguments, calls the engine and prints."""
