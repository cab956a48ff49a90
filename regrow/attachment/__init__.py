"""WHEN: a method at work on a model and its optimizer."""
