"""One thread per process: with more, small tensors and parallel test processes wait for each other.

Property-based tests draw other examples each time they run, and print how to run a failure again.
"""

import gc
import os
import signal

os.environ["OMP_NUM_THREADS"] = "1"  # also for processes that tests start
# What a shell starts in the background ignores Ctrl-C, and so would the commands that are to be stopped by it.
signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

torch.set_num_threads(1)

settings.register_profile("short", max_examples=100, deadline=None, derandomize=False, database=None, print_blob=True)
settings.register_profile("long", settings.get_profile("short"), max_examples=5000)
settings.load_profile("short")


def pytest_collection_finish() -> None:
    """Leave out what was imported when garbage is looked for: half a second each time that a test asks for it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def process_settings():
    """What a run sets in its process, put back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
