"""Fused loops, each equal to the plain path. Imports nothing of regrow above it, and no torch."""
