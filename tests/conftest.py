"""One thread per process: with more, small tensors and parallel test processes wait for each other."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # also for processes that tests start

import torch  # noqa: E402

torch.set_num_threads(1)
