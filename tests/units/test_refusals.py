"""Networks in forms that cannot be served, and what is said about it."""

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import regrow
from regrow.errors import ModelError
from regrow.units.trace import find_units
from regrow.units.verify import verify
from tests.units.test_user_models import OBSERVATIONS, mlp, proven


def refused(model: nn.Module, *more: Callable[[], Any]) -> str:
    """What finding the units of a model says, and proving them too, and all other calls."""
    with pytest.raises(ModelError) as caught:
        find_units(model, OBSERVATIONS)
    text = str(caught.value)
    for call in (lambda: verify(model, OBSERVATIONS), *more):
        with pytest.raises(ModelError, match=f"^{re.escape(text)}$"):
            call()
    return text


def refused_at_once(model: nn.Module) -> str:
    """The same, and attaching says so before anything has run, whatever the method."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1)), *model.parameters()], 0.1)
    return refused(
        model,
        lambda: regrow.attach(model, optimizer, "cbp", example=OBSERVATIONS),
        lambda: regrow.attach(model, optimizer, "l2"),
        lambda: regrow.attach(model, None, "cbp"),
    )


# No parameters


def test_no_parameters() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(5, 6), nn.Linear(6, 2)]

    assert refused_at_once(Hidden()) == (
        "Hidden has no parameters, so it has no units. Give the network that is trained, with its layers as attributes "
        "or in a ModuleList: those in a plain list or dict are not part of it."
    )


# Memory


def test_parameters_that_overlap() -> None:
    model = mlp()
    storage = torch.randn(30)
    model[0].bias = nn.Parameter(storage[:6])
    model[2].bias = nn.Parameter(storage[5:12])
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    text = refused(model, lambda: regrow.attach(model, optimizer, "cbp", example=OBSERVATIONS))
    assert text == (
        "0.bias and 2.bias share memory but are two parameters, so it cannot be told which units the elements belong "
        "to. Tie weights by using one nn.Parameter in both places."
    )
    model[2].bias = nn.Parameter(storage[6:13])  # one piece of memory for several, as after flattening, is fine
    assert proven(model, OBSERVATIONS)["0"].status == "free"


def test_a_parameter_that_overlaps_itself() -> None:
    model = mlp()
    model[2].weight = nn.Parameter(torch.ones(6).expand(7, 6))
    assert refused(model) == (
        "2.weight, of shape (7, 6) and strides (0, 1), has several elements in one place of memory, so they cannot be "
        "set one by one. Make it nn.Parameter(it.contiguous())."
    )
    model[2].weight = nn.Parameter(model[2].weight.contiguous())
    assert proven(model, OBSERVATIONS)["0"].status == "free"


def test_lazy_layers_before_their_first_run() -> None:
    model = nn.Sequential(nn.LazyLinear(6), nn.ReLU(), nn.LazyLinear(2))
    assert refused(model) == "0.weight has no shape yet. Run the model once on data, so that its lazy layers take one."


# Quantised weights


@pytest.mark.filterwarnings("ignore:torch.ao.quantization:DeprecationWarning", "ignore:torch.quantize:UserWarning")
def test_packed_layers() -> None:
    model = torch.ao.quantization.quantize_dynamic(mlp(), {nn.Linear})
    assert refused_at_once(model) == (
        "Sequential has no parameters, since its weights were packed by quantisation. Attach to the model before "
        "quantising it, and quantise what was trained."
    )
    part = mlp()
    part[2] = model[2]
    assert proven(part, OBSERVATIONS)["0"].reasons == (
        "quantized::linear_dynamic of 2 takes packed weights, as of a quantised layer: single ones cannot be set",
    )


class IntegerLinear(nn.Module):
    """As libraries for quantisation have it: integers, and a scale for each row."""

    def __init__(self, inputs: int, outputs: int, as_buffers: bool) -> None:
        super().__init__()
        weight = torch.randint(-8, 8, (outputs, inputs), dtype=torch.int8)
        if as_buffers:
            self.register_buffer("weight", weight)
            self.register_buffer("scale", torch.rand(outputs))
        else:
            self.weight = nn.Parameter(weight, requires_grad=False)
            self.scale = nn.Parameter(torch.rand(outputs))

    def forward(self, value: Tensor) -> Tensor:
        return F.linear(value, self.weight.to(value.dtype)) * self.scale


def test_integer_weights() -> None:
    model = mlp()
    model[2] = IntegerLinear(6, 7, as_buffers=False)
    graph = proven(model, OBSERVATIONS)
    assert (
        graph["0"].reasons
        == graph["2"].reasons
        == ("2.weight is of type int8, as quantised weights are, and numbers drawn anew would not fit",)
    )
    model[2] = IntegerLinear(6, 7, as_buffers=True)
    assert proven(model, OBSERVATIONS)["0"].reasons == ("mm of 2 sums over units, with no parameter",)
    assert refused_at_once(nn.Sequential(IntegerLinear(5, 2, as_buffers=True))).startswith(
        "Sequential has no parameters, since its weights were packed by quantisation. Attach to the model before "
    )


class Packed(Tensor):
    """A weight in two parts, as quantisation libraries have it."""

    @staticmethod
    def __new__(cls, values: Tensor, scale: Tensor) -> "Packed":
        return Tensor._make_wrapper_subclass(cls, values.shape, dtype=scale.dtype, requires_grad=False)

    def __init__(self, values: Tensor, scale: Tensor) -> None:
        self.values, self.scale = values, scale

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].values, args[0].scale)
        return NotImplemented


def test_weights_in_a_tensor_subclass() -> None:
    model = mlp()
    packed = Packed(torch.ones(7, 6, dtype=torch.int8), torch.ones(7, 1))
    model[2].weight = nn.Parameter(packed, requires_grad=False)
    assert refused_at_once(model) == (
        "2.weight is of type Packed, which holds numbers in a form of its own, as quantised tensors do, so those of "
        "single units cannot be set. Attach to the model before quantising it, and quantise what was trained."
    )


# Shards

SHARDED = """
import warnings
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
import regrow
warnings.simplefilter("ignore")
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
make = lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))
wrap = lambda model, **more: FullyShardedDataParallel(model, device_id=torch.device("cpu"), **more)
models = {"fully_shard": make(), "wrapped": wrap(make(), use_orig_params=True), "in part": make()}
fully_shard(models["fully_shard"], mesh=init_device_mesh("cpu", (1,)))
models["in part"][2] = wrap(models["in part"][2])
models |= {"within": wrap(make()).module, "views within": wrap(make(), use_orig_params=True).module}
x = torch.ones(3, 5)
for name, model in models.items():
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    said = set()
    for call in (
        lambda: regrow.find_units(model, x),
        lambda: regrow.attach(model, optimizer, "cbp", example=x),
        lambda: regrow.attach(model, optimizer, "cbp"),
        lambda: regrow.attach(model, optimizer, "l2"),
    ):
        try:
            said.add(f"refused nothing: {call()}")
        except regrow.RegrowError as error:
            said.add(str(error))
    print(name, "|", *said)

model = make()
optimizer = torch.optim.SGD(model.parameters(), 0.1)
plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(1.0, 0), example=x)
fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
try:
    model(x).sum().backward()
    optimizer.step()
except regrow.RegrowError as error:
    print("sharded later |", error)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_shards() -> None:
    done = subprocess.run([sys.executable, "-c", SHARDED], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    instead = (
        "so each rank holds part of a unit, and units cannot be replaced there. Distribute the model by "
        "DistributedDataParallel, which keeps parameters whole; to look at units only, call find_units() before "
        "sharding."
    )
    assert done.stdout.splitlines() == [
        f"fully_shard | 0.weight is a DTensor, as after fully_shard(), {instead}",
        f"wrapped | The model is wrapped by FullyShardedDataParallel, {instead}",
        f"in part | 2 is wrapped by FullyShardedDataParallel, {instead}",
        f"within | _flat_param is part of a flat parameter of FullyShardedDataParallel, {instead}",
        f"views within | 0.weight is part of a flat parameter of FullyShardedDataParallel, {instead}",
        "sharded later | 0.weight is not the parameter that it was at attach(), so group '0' cannot be replaced. After "
        "exchanging a layer, detach() and attach() anew.",
    ]
