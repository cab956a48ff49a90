"""Networks within wrappers, compiled, scripted, in other types or without data: the groups stay what they are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import regrow
from regrow.errors import ModelError
from regrow.units.trace import find_units
from regrow.units.verify import verify
from tests.units.test_user_models import OBSERVATIONS, chain, mlp, proven, rows

EXPECTED = chain("", ("0", 6), ("2", 7), ("4", 2))


@contextmanager
def process_group() -> Iterator[None]:
    """A world of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def test_data_parallel_wrappers_are_looked_through() -> None:
    assert rows(proven(nn.DataParallel(mlp()), OBSERVATIONS)) == EXPECTED
    with process_group():
        model = nn.parallel.DistributedDataParallel(mlp())
        assert rows(proven(model, OBSERVATIONS)) == EXPECTED
        assert rows(proven(model, lambda network: model(OBSERVATIONS))) == EXPECTED
        measured = regrow.measure(model, OBSERVATIONS.repeat(2, 1))
    assert measured.groups.keys() == {"0", "2"}


COMPILED: dict[str, Callable[[], Any]] = {
    "wrapper": lambda: torch.compile(mlp(), backend="eager"),
    "in place": lambda: compiled_in_place(mlp()),
    "ahead of time": lambda: torch.compile(mlp(), backend="aot_eager"),
    "within a data-parallel wrapper": lambda: nn.DataParallel(torch.compile(mlp(), backend="eager")),
}


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's compiler, of itself
@pytest.mark.parametrize("make", COMPILED.values(), ids=COMPILED)
@pytest.mark.parametrize("called", [False, True])
def test_compiled_networks(make: Callable[[], Any], called: bool) -> None:
    torch.compiler.reset()
    model = make()
    if called:
        model(OBSERVATIONS).sum().backward()
    assert rows(proven(model, OBSERVATIONS)) == EXPECTED


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_a_compiled_part_keeps_its_name() -> None:
    torch.compiler.reset()
    model = mlp()
    model[2] = torch.compile(model[2], backend="eager")
    model(OBSERVATIONS)
    assert rows(proven(model, OBSERVATIONS)) == [
        ("0", 6, "free", "0.weight", "2._orig_mod.weight"),
        ("2._orig_mod", 7, "free", "2._orig_mod.weight", "4.weight"),
        ("4", 2, "output", "4.weight", ""),
    ]


# TorchScript


def convnet() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 6), nn.Dropout(), nn.ReLU()
    return nn.Sequential(*layers, nn.Linear(6, 2))


IMAGES = torch.linspace(-1, 1, 75).view(3, 1, 5, 5)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    "make",
    [torch.jit.script, lambda model: torch.jit.trace(model, IMAGES, check_trace=False)],
    ids=["scripted", "traced"],
)
def test_torchscript(make: Callable[[nn.Module], Any]) -> None:
    model = make(convnet())
    expected = chain("", ("0", 4), ("4", 6), ("7", 2))
    assert rows(proven(model, IMAGES)) == expected
    for _ in range(3):
        model(IMAGES).sum().backward()  # from here on it runs as an optimised graph
    assert rows(proven(model, IMAGES)) == expected


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_scripted_part() -> None:
    model = mlp()
    model[2] = torch.jit.script(nn.Sequential(nn.Linear(6, 7), nn.ReLU()))
    assert rows(proven(model, OBSERVATIONS)) == [
        ("0", 6, "free", "0.weight", "2.0.weight"),
        ("2.0", 7, "free", "2.0.weight", "4.weight"),
        ("4", 2, "output", "4.weight", ""),
    ]


# Types and devices


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_networks_in_other_types(dtype: torch.dtype) -> None:
    assert rows(proven(mlp().to(dtype), OBSERVATIONS.to(dtype))) == EXPECTED


def test_autocast() -> None:
    def example(model: nn.Module) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(OBSERVATIONS)

    assert rows(proven(mlp(), example)) == EXPECTED
    within = torch.autocast("cpu", torch.bfloat16)
    with within:
        assert rows(proven(mlp(), OBSERVATIONS)) == EXPECTED


def test_the_meta_device_tells_units_and_proves_nothing() -> None:
    model = convnet().to("meta")
    example = IMAGES.to("meta")
    assert rows(find_units(model, example)) == chain("", ("0", 4), ("4", 6), ("7", 2))
    with pytest.raises(ModelError, match=r"0\.weight is on the meta device and has no values, so nothing can be prov"):
        verify(model, example)
