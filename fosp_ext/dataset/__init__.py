"""Dataset files: recording, inspection, merging, splitting and conversion."""
