"""Methods compared on one task: planned, run side by side, tabulated."""
