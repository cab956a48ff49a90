"""How much faster the fused loop is than the plain path, on inputs as sparse as MNIST: `python -m benchmarks.engines`.

Each case learns the same examples, online, with step size .01, on a ReLU network 784–w–w–w–10. Continual
backpropagation runs as the studies have it (weight sums at each step, ρ = 1e-4, m = 100).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.interleave import Row, compare, parse, report
from regrow.errors import DataError
from regrow.experiments.learner import build_learner
from regrow.methods import Backprop, ContinualBackprop, Method
from regrow.networks.mlp import MLP
from regrow.streams.sources import load

FEATURES = 784
METHODS: dict[str, Method] = {"backprop": Backprop(), "cbp": ContinualBackprop(weight_sums="each_step")}


def main() -> None:
    options = parse(__doc__.splitlines()[0])
    inputs, labels, origin = examples()
    density = (inputs != 0).float().mean().item()
    rows: list[Row] = []
    for width in (64, 100, 1000):
        steps = 200 if width == 1000 else 1000
        for name, method in METHODS.items():
            cases = {
                f"{name}, width {width}, {engine}": learning(engine, method, width, inputs, labels, steps)
                for engine in ("plain", "fused")
            }
            rows += compare(cases, f"{name}, width {width}, plain", rounds=3 if options.quick else 15)
    notes = [
        f"inputs: {origin}; {density:.1%} of the values are not zero",
        "a call learns 1,000 examples (width 1000: 200), batch 1",
    ]
    report(rows, "Fused loop and plain path, online learning, 784–w–w–w–10", options.json, notes)


def learning(engine: str, method: Method, width: int, inputs: Tensor, labels: Tensor, steps: int) -> Callable[[], None]:
    """A case: learn the next `steps` examples."""
    torch.manual_seed(0)
    learner = build_learner(
        MLP(FEATURES, [width] * 3, 10), 0.01, [method], init="kaiming_uniform", seed=0, engine=engine
    )
    position = 0

    def learn() -> None:
        nonlocal position
        part = slice(position, position + steps)
        learner.learn(inputs[part], labels[part])
        position = (position + steps) % (len(labels) - steps)

    return learn


def examples() -> tuple[Tensor, Tensor, str]:
    """Inputs [n, 784] in [0, 1] with fixed order, labels and origin: MNIST if it is there, else the packaged digits
    at 28×28.
    """
    random = np.random.default_rng(0)
    try:
        source = load("mnist")
        pixels = source.images.reshape(len(source), -1)
        origin = source.origin
    except DataError:
        source = load()
        # 20×20 pixels of digit on a 28×28 page, as MNIST has it, and as many bright ones: the faint ones are dropped.
        digits = source.images[:, np.arange(20) * 8 // 20][:, :, np.arange(20) * 8 // 20]
        page = np.pad(digits, ((0, 0), (4, 4), (4, 4)))
        pixels = page.reshape(len(source), -1)
        pixels = np.where(pixels > np.quantile(pixels, 1 - 0.19), pixels, 0)
        origin = f"{source.origin}, enlarged to 28×28 and faint pixels dropped (MNIST is not below REGROW_DATA)"
    order = random.permutation(len(source))[:10000]
    inputs = torch.from_numpy(pixels[order].astype(np.float32) / np.float32(source.white))
    return inputs, torch.from_numpy(source.labels[order]), origin


if __name__ == "__main__":
    main()
