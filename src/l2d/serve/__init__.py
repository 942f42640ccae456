"""Serving over HTTP: batches, deadlines, keys, live writes; no recommendation logic."""
