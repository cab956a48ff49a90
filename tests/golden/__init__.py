"""A short recorded run of every method. A refactor changes none of these numbers."""
