"""The embedded people: synthetic pictures with exact truth, written in the raw layouts of the real sets."""
