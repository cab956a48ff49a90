import pytest
import torch


@pytest.fixture
def process_settings():
    """What a run sets in its process, put back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
