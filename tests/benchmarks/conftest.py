"""What a benchmark sets for its process is set back."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Threads, and what becomes of denormal numbers."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
