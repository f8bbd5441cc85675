"""Cloning of the recorded safe policy from different inputs: what a policy could do with each."""
