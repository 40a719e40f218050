"""The contestants: one file a library, functions from a size and options to a unit of work."""
