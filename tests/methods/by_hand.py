"""A network small enough to be worked out in NumPy: 3–4–2, ReLU, half the mean squared error."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import regrow
from regrow.methods import Method

LEARNING_RATE = 0.1
Arrays = dict[str, np.ndarray]


def make_network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def batch(seed: int = 0, size: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 3, generator=generator), torch.randn(size, 2, generator=generator)


def values(model: nn.Module) -> Arrays:
    """The parameters, in double precision."""
    return {name: parameter.detach().double().numpy().copy() for name, parameter in model.named_parameters()}


def hidden(w: Arrays, inputs: Tensor) -> np.ndarray:
    """Activations of the hidden layer."""
    return np.maximum(inputs.double().numpy() @ w["0.weight"].T + w["0.bias"], 0)


def gradients(w: Arrays, seed: int = 0) -> Arrays:
    """Gradients of the loss on a batch, by the chain rule."""
    inputs, targets = batch(seed)
    h = hidden(w, inputs)
    error = (h @ w["2.weight"].T + w["2.bias"] - targets.double().numpy()) / len(inputs)
    back = (error @ w["2.weight"]) * (h > 0)
    return {
        "0.weight": back.T @ inputs.double().numpy(),
        "0.bias": back.sum(axis=0),
        "2.weight": error.T @ h,
        "2.bias": error.sum(axis=0),
    }


def loss_of(model: nn.Module, seed: int = 0) -> Tensor:
    inputs, targets = batch(seed)
    return (model(inputs) - targets).square().sum() / (2 * len(inputs))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int = 0) -> None:
    optimizer.zero_grad()
    loss_of(model, seed).backward()
    optimizer.step()


def attached(
    method: Method, model: nn.Module | None = None, **options: object
) -> tuple[nn.Module, torch.optim.Optimizer, regrow.Attachment]:
    """The network under plain SGD with a method at work."""
    model = make_network() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    return model, optimizer, regrow.attach(model, optimizer, method, **{"example": batch()[0], **options})


def descended(w: Arrays, gradient: Arrays) -> Arrays:
    """After one step of plain SGD."""
    return {name: value - LEARNING_RATE * gradient[name] for name, value in w.items()}


def assert_equal(model: nn.Module, expected: Arrays, tolerance: float = 2e-6) -> None:
    for name, value in values(model).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=tolerance, err_msg=name)


def does_nothing(method: Method, tell: Callable[[regrow.Attachment], None] = lambda plastic: None) -> bool:
    """Whether training with the method is bit for bit what it is without."""
    model, optimizer, plastic = attached(method)
    twin = make_network()
    other = torch.optim.SGD(twin.parameters(), lr=LEARNING_RATE)
    for seed in range(6):
        step(model, optimizer, seed)
        step(twin, other, seed)
        tell(plastic)
    return all(torch.equal(*pair) for pair in zip(model.parameters(), twin.parameters(), strict=True))
