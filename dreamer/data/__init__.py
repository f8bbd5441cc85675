"""Recorded episodes: files, stores and streams of batches."""
