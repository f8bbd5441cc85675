"""Experiments that measure learning: comparisons, diagnoses and their figures."""
