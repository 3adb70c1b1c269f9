"""Measures what the library costs beside a loop written by hand."""
