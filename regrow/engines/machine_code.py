"""The machine code of the fused loop: compiled once, by a process of its own, and loaded by all others.

A process that compiles keeps code in memory in the order in which it compiled, some functions inside of others, and
sums in another order, which is rounding, than one that loads the same functions from disk. A run that one began and the
other resumed would end with other bits.
"""

import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import numba
from filelock import FileLock

from regrow.kernels.compiled import sources
from regrow.kernels.online_mlp import learn

_here = False


def provide() -> None:
    """See that all functions are on disk. Where nothing can be written, every process compiles them for itself."""
    global _here
    kept = learn.stats.cache_path  # type: ignore[attr-defined]
    if _here or not kept:
        return
    folder = Path(kept)
    made_for = f"{sources}-{sys.implementation.cache_tag}-numba-{numba.__version__}-{llvm.get_host_cpu_name()}"
    done = folder / f"compiled-{made_for}"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "compiling.lock"):
            if not done.exists():
                subprocess.run([sys.executable, "-P", "-c", f"import {__name__} as it; it.compile_all()"], check=True)
                done.touch()
    _here = True


def compile_all() -> None:
    """Have everything compiled and kept, in this process: learn a little, since one loop serves all methods."""
    global _here
    _here = True
    import torch
    from torch import nn

    from regrow.engines.fused_learner import FusedLearner
    from regrow.methods import ContinualBackprop

    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    FusedLearner(network, 0.1, [ContinualBackprop(0.5, 0)]).learn(torch.rand(8, 4), torch.zeros(8, dtype=torch.int64))
