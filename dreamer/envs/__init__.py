"""Environments that every task shares."""
