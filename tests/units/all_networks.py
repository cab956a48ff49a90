"""All networks with groups that a person found in them, but for one that is large."""

from tests.units.hand_written import CASES
from tests.units.image_networks import IMAGE_NETWORKS
from tests.units.sequence_networks import SEQUENCES
from tests.units.structural_networks import STRUCTURAL
from tests.units.value_networks import VALUES

NETWORKS = [*CASES, *SEQUENCES, *IMAGE_NETWORKS, *STRUCTURAL, *VALUES]
