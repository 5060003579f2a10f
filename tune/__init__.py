"""Searches and studies."""
