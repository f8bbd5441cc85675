"""Dataset files as people handle them: chosen for a run, looked at, joined, cut and converted."""
