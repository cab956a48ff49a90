"""A grammar of networks. Importing a file of kinds registers them."""

from tests.units.grammar import images, parameters, sequences, values
from tests.units.grammar.program import Network, Program, Step, programs

__all__ = ["Network", "Program", "Step", "images", "parameters", "programs", "sequences", "values"]
