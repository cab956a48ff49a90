"""What `attach` costs on a normal training step: `python -m benchmarks.overhead`.

Each network is trained by the same loop with and without continual backpropagation, in turn.
"""

from collections.abc import Callable

import torch
from torch import nn

import regrow
from benchmarks.interleave import compare, parse, report
from regrow.methods import Method
from regrow.networks.resnet import resnet18

BATCH = 32


def mlp() -> tuple[nn.Module, torch.Tensor]:
    hidden = [layer for width in (784, 2000, 2000) for layer in (nn.Linear(width, 2000), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(2000, 10)), torch.rand(BATCH, 784)


def resnet() -> tuple[nn.Module, torch.Tensor]:
    return resnet18(classes=10), torch.rand(BATCH, 3, 32, 32)


def loop(build: Callable[[], tuple[nn.Module, torch.Tensor]], method: Method | None, steps: int) -> Callable[[], None]:
    torch.manual_seed(0)
    model, inputs = build()
    labels = torch.randint(10, (BATCH,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    if method is not None:
        regrow.attach(model, optimizer, method, example=inputs)

    def train() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()

    return train


def main() -> None:
    options = parse(__doc__.splitlines()[0])
    methods = {
        "bare": None,
        "cbp, weight sums when due (default)": regrow.ContinualBackprop(maturity_threshold=0),
        "cbp, weight sums at each step": regrow.ContinualBackprop(maturity_threshold=0, weight_sums="each_step"),
    }
    rows = []
    for network, build, steps in (("MLP", mlp, 10), ("ResNet-18", resnet, 1)):
        cases = {f"{network}, {name}": loop(build, method, steps) for name, method in methods.items()}
        rows += compare(cases, f"{network}, bare", rounds=3 if options.quick else 20)
    notes = [
        f"MLP: 784–2000–2000–2000–10, {BATCH} examples a step, a call takes 10 steps",
        f"ResNet-18: 3×32×32, {BATCH} examples a step, a call takes 1 step",
        "SGD with momentum; ρ = 1e-4, m = 0, so that every timed step replaces as many as later ones",
    ]
    report(rows, "Cost of attach on a training step", options.json, notes)


if __name__ == "__main__":
    main()
