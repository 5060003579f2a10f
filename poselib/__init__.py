"""The pose model and its mathematics: no files, no processes, no network."""
