"""Measurements of speed. Run each as a module from the root of the repository."""
