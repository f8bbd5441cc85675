"""Probes of a world model: what can be read from its states, and how far imagination is right."""
