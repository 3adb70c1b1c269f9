"""Many requests from a file into a file: crash-safe, resumable, at the endpoint's pace."""
