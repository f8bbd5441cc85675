"""Runs of train.py and eval.py: what they read, do and leave behind."""
