"""Containers, one module each: sniff, open, layout."""
