"""A network that is compiled is served as the one that was written: same replacements, same graphs at every step."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint

import regrow
from regrow.methods import Method, UnitMethod, WeightMethod
from tests.conformance.cases import METHODS, OPTIMIZERS, PROBLEMS, Problem, Run, brisk, every_method, same, start
from tests.conformance.loops import begin

# Of torch's compiler itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated. Please switch to:DeprecationWarning"),
]

MOMENTS = ("before compiling", "after compiling", "after the first call")
STEPS = 15
ADAPTABLE = regrow.ContinualBackprop(0.05, 4, utility_rule="adaptable_contribution")


class Compiler:
    """Runs what it is given as it is, and counts it.

    Attributes:
        graphs: so many have been compiled; each time anew counts.
        layers: of each graph in the order in which they were run, how many linear layers it has.
    """

    def __init__(self, **settings: Any) -> None:
        torch.compiler.reset()
        counters.clear()
        self.graphs = 0
        self.layers: list[int] = []
        self._settings = settings

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.graphs += 1
        layers = sum(node.target is torch._C._nn.linear for node in graph.graph.nodes)

        def run(*args: Any) -> Any:
            self.layers.append(layers)
            return graph.forward(*args)

        return run

    @property
    def breaks(self) -> int:
        """So many times the compiler gave up on a graph, counting each attempt."""
        return sum(counters["graph_break"].values())

    def compile(self, model: nn.Module, in_place: bool) -> Any:
        """The model, compiled."""
        if in_place:
            model.compile(backend=self, **self._settings)
            return model
        return torch.compile(model, backend=self, **self._settings)


def _compiled(
    problem: str,
    method: Method,
    compiler: Compiler,
    moment: str = MOMENTS[0],
    in_place: bool = False,
    lazy: bool = False,
) -> tuple[Run, nn.Module]:
    """A run on a compiled model, at its beginning, and the model as it was written."""
    kind = PROBLEMS[problem]
    model = kind.network()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    run = Run(kind, model, optimizer, None)
    example = None if lazy else kind.batch(0)[0]
    if moment == MOMENTS[0]:
        run.plastic = regrow.attach(model, optimizer, method, example=example)
        run.model = compiler.compile(model, in_place)
        return run, model
    run.model = compiler.compile(model, in_place)
    if moment == MOMENTS[2]:
        kind.loss(run.model(kind.batch(0)[0]), kind.batch(0)[1]).backward()
        assert compiler.graphs == 1
        compiler.graphs = 0
    run.plastic = regrow.attach(run.model, optimizer, method, example=example)
    return run, model


def _graphs(method: Method) -> int:
    """So many graphs of a network there are: those that look at steps of their own read in these only."""
    return 1 + (isinstance(method, UnitMethod) and method.reads_activations and not method.reads_every_step)


def _keeps_inputs(method: Method) -> bool:
    return isinstance(method, WeightMethod) and method.feature_examples > 0


_TURNS = [
    ("actor-critic", name, moment, (turn + which) % 2 == 0)
    for turn, name in enumerate(METHODS)
    for which, moment in enumerate(MOMENTS)
] + [
    # Compiled in place, a container of torch compiles no layer.
    (problem, name, MOMENTS[(turn + which) % 3], turn % 2 == 0 and problem == "resnet")
    for turn, name in enumerate(METHODS)
    for which, problem in enumerate(("mlp", "convnet", "resnet"))
]
_LAYERS = {"actor-critic": 6, "mlp": 3, "convnet": 2, "resnet": 1}  # that are linear


@pytest.mark.parametrize(("problem", "method", "moment", "in_place"), _TURNS)
def test_the_same_replacements_and_weights(problem: str, method: str, moment: str, in_place: bool) -> None:
    compiler = Compiler()
    run, model = _compiled(problem, brisk(method), compiler, moment, in_place)
    expected = start(problem, "adam", brisk(method))
    if moment == MOMENTS[2]:
        with torch.no_grad():
            expected.model(expected.problem.batch(0)[0])  # which moves the statistics of norms
    expected.train(STEPS)
    run.train(8)
    graphs = compiler.graphs
    run.train(STEPS - 8)
    # L2-ER has one break, which counts in each of three calls within one another. It comes before the network, which
    # stays whole; but one that inherits `forward` from a container of torch runs as it was written then.
    breaks = _keeps_inputs(brisk(method))
    is_written = breaks and problem == "convnet"
    assert compiler.graphs == graphs == (0 if is_written else _graphs(brisk(method)))  # none at later steps
    assert run.plastic.events == expected.plastic.events
    assert same(model.state_dict(), expected.state)
    assert compiler.breaks == (0 if not breaks else 4 if isinstance(model, nn.Sequential) else 3)
    assert set(compiler.layers) == (set() if is_written else {_LAYERS[problem]})

    for each in (run, expected):
        each.plastic.detach()
        each.train(3)
    assert same(model.state_dict(), expected.state)
    assert len(run.plastic.events) == len(expected.plastic.events)


@every_method(lambda method: not _keeps_inputs(method))
def test_a_transformer_is_one_graph_without_a_break(method: str) -> None:
    compiler = Compiler(fullgraph=True)  # an error if there is a break
    in_place = METHODS.index(method) % 2 == 0
    run, model = _compiled("transformer", brisk(method), compiler, in_place=in_place)
    expected = start("transformer", "adam", brisk(method)).train(STEPS)
    run.train(STEPS)
    assert compiler.graphs == _graphs(brisk(method))
    assert run.plastic.events == expected.plastic.events
    assert same(model.state_dict(), expected.state)


@pytest.mark.parametrize(
    "method", [*(name for name in METHODS if getattr(brisk(name), "reads_activations", False)), ADAPTABLE]
)
def test_accumulation_is_not_compiled_anew_for_every_forward(method: str | Method) -> None:
    method = brisk(method) if isinstance(method, str) else method
    runs = []
    compiler = Compiler()
    for is_compiled in (True, False):
        run = _compiled("actor-critic", method, compiler)[0] if is_compiled else start("actor-critic", "adam", method)
        for step in range(16):
            run.optimizer.zero_grad()
            for part in range(12):  # more than the compiler would try
                inputs, targets = run.problem.batch(12 * step + part)
                run.problem.loss(run.model(inputs), targets).backward()
            run.optimizer.step()
        runs.append(run)
    assert runs[0].plastic.events == runs[1].plastic.events != []
    if method is ADAPTABLE:  # keeps activations: compiled is what reads each of four taps, in three parts, and no layer
        assert (compiler.graphs, compiler.breaks) == (5, 8)
        assert compiler.layers[-12:] == [0] * 12
    else:
        assert compiler.graphs == 1 + _graphs(method) and not compiler.breaks


class Written(nn.Module):
    """Layers that are called one by one, and not by a container of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(8, 16), nn.Linear(16, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.middle(torch.relu(self.first(x)))))


def test_where_activations_are_kept_layers_are_compiled_but_not_across_taps() -> None:
    compiler = Compiler()
    kind = Problem(Written, PROBLEMS["mlp"].draw)
    runs = [begin(kind, OPTIMIZERS["adam"], ADAPTABLE) for _ in range(2)]
    runs[0].model = compiler.compile(runs[0].model, in_place=False)
    assert runs[0].train(STEPS).plastic.events == runs[1].train(STEPS).plastic.events != []
    assert (compiler.graphs, compiler.breaks) == (9, 8)
    # The first layer with its ReLU; what reads the tap, in three parts; the second layer; its ReLU; and so on.
    assert compiler.layers[-10:] == [1, 0, 0, 0, 1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("moment", MOMENTS)
def test_units_are_found_at_the_first_forward(moment: str, in_place: bool) -> None:
    compiler = Compiler()
    run, model = _compiled("actor-critic", brisk("cbp"), compiler, moment, in_place, lazy=True)
    expected = start("actor-critic", "adam", brisk("cbp")).train(STEPS)
    assert run.plastic.graph is None
    run.train(STEPS)
    assert run.plastic.events == expected.plastic.events != []
    assert same(model.state_dict(), expected.state)
    assert (compiler.graphs, compiler.breaks) == (1, 1)


@every_method(lambda method: isinstance(method, UnitMethod) and method.reads_activations)
def test_hooks_that_do_not_run_are_an_error_that_says_what_to_do(method: str) -> None:
    compiler = Compiler()
    kind = PROBLEMS["actor-critic"]
    model = kind.network()
    run = Run(kind, compiler.compile(model, in_place=False), OPTIMIZERS["sgd"](model.parameters()), None)
    run.train(1)
    # That it is compiled, and was called, the model itself does not know.
    with regrow.attach(model, run.optimizer, brisk(method), example=kind.batch(0)[0]):
        with pytest.raises(
            regrow.errors.StateError, match="give attach.. what torch.compile returned, or call"
        ) as error:
            run.train(1)
        assert "torch.compiler.reset() after attach()" in str(error.value)
    run.plastic = regrow.attach(model, run.optimizer, brisk(method), example=kind.batch(0)[0])
    torch.compiler.reset()
    assert run.train(STEPS).plastic.events


@pytest.mark.parametrize("method", ["cbp", "snr", "ccbp"])
@pytest.mark.parametrize("called", [False, True])
def test_blocks_that_are_compiled_each_for_itself(method: str, called: bool) -> None:
    compiler = Compiler()
    run = start("transformer", "adam", None)
    model = run.model
    expected = start("transformer", "adam", brisk(method)).train(STEPS)
    for block in model.blocks:
        block.compile(backend=compiler, fullgraph=True)
    if called:
        model(run.problem.batch(0)[0]).sum().backward()
    run.plastic = regrow.attach(model, run.optimizer, brisk(method), example=run.problem.batch(0)[0])
    run.train(STEPS)
    assert compiler.graphs
    assert run.plastic.events == expected.plastic.events != []
    assert same(run.state, expected.state)


class Recomputing(Written):
    """The activations of its middle are thrown away, and computed once more in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(checkpoint(self._hidden, x, use_reentrant=False))

    def _hidden(self, x: Tensor) -> Tensor:
        return torch.relu(self.middle(torch.relu(self.first(x))))


@every_method(lambda method: isinstance(method, UnitMethod) and method.reads_activations)
def test_activations_that_are_computed_twice(method: str) -> None:
    compiler = Compiler()
    runs = []
    for is_compiled in (False, True):
        model = Problem(Recomputing, PROBLEMS["mlp"].draw).network()
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        plastic = regrow.attach(model, optimizer, brisk(method), example=PROBLEMS["mlp"].batch(0)[0])
        model = compiler.compile(model, in_place=False) if is_compiled else model
        runs.append(Run(PROBLEMS["mlp"], model, optimizer, plastic).train(STEPS))
    assert runs[0].plastic.events == runs[1].plastic.events != []
    assert compiler.graphs == _graphs(brisk(method))
    assert compiler.breaks == 1


def test_a_pause_is_compiled_once() -> None:
    compiler = Compiler()
    run, _ = _compiled("actor-critic", brisk("cbp"), compiler)
    other = start("actor-critic", "adam", brisk("cbp"))
    for each in (run, other):
        for _ in range(4):
            each.train(3)
            with each.plastic.paused():
                each.train(1)
    assert compiler.graphs == 2
    assert run.plastic.events == other.plastic.events != []


def test_examinations_of_a_compiled_model_see_it_as_it_was_written() -> None:
    compiler = Compiler()
    run, model = _compiled("actor-critic", brisk("cbp"), compiler, in_place=True)
    run.train(5)
    inputs = PROBLEMS["actor-critic"].batch(0)[0]
    graph = regrow.find_units(run.model, inputs)
    assert [group.name for group in graph] == [group.name for group in run.plastic.graph]
    assert regrow.verify(run.model, inputs, graph).ok
    assert regrow.measure(run.model, PROBLEMS["actor-critic"].batch(0, 16)[0], graph)
    before = run.plastic.state_dict()
    assert all(value.equal(before[name]) for name, value in run.plastic.state_dict().items())
    assert compiler.graphs == 1


# Of the compiler itself: it meets the hooks of optimizers.
@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace:UserWarning")
@pytest.mark.parametrize("method", ["cbp", "l2-init", "shrink-and-perturb"])
def test_an_optimizer_step_that_is_compiled(method: str) -> None:
    compiler = Compiler()
    run = start("actor-critic", "sgd", brisk(method))
    expected = start("actor-critic", "sgd", brisk(method)).train(STEPS)
    run.optimizer.step = torch.compile(run.optimizer.step, backend=compiler)
    run.train(STEPS)
    assert compiler.graphs
    assert run.plastic.events == expected.plastic.events
    assert same(run.state, expected.state)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the default compiler of torch needs one of C++")
@pytest.mark.parametrize("method", ["cbp", "redo"])
def test_with_the_default_compiler(method: str) -> None:
    torch.compiler.reset()
    run = start("actor-critic", "sgd", brisk(method))
    run.model = torch.compile(run.model, fullgraph=True)
    expected = start("actor-critic", "sgd", brisk(method)).train(STEPS)
    run.train(STEPS)
    assert run.plastic.events == expected.plastic.events != []
    for name, value in expected.state.items():
        torch.testing.assert_close(run.state[f"_orig_mod.{name}"], value, rtol=1e-4, atol=1e-5)
