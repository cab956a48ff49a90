"""One file per study. Importing one registers it."""

from regrow.studies.permuted_digits import PermutedDigits as PermutedDigits
