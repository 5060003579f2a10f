"""The runs that come with the project: one complete YAML each."""
