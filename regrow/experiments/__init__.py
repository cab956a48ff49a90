"""Specs, runs and their folders, and the processes that do them."""
