"""Random draws: one seeded generator per method, always on the host.

Draws made on the host do not depend on the device, so runs, ranks and devices agree.
"""

import numpy as np
from torch import Generator


def seeded_generator(seed: int, index: int) -> Generator:
    """Generator number `index` of a seed, independent of the others."""
    word = int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0])
    return Generator().manual_seed(word)
