"""Networks that learn side by side equal each by itself, step by step, on the host; and on a GPU, that on the host."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regrow.engines.batched_learner import BatchedLearner, batched_reason
from regrow.engines.learner import PlainLearner
from regrow.engines.step_graphs import Batches, Step, StepGraphs, run_eagerly
from regrow.engines.training import Training
from regrow.errors import ConfigError, DataError, StateError
from regrow.experiments.checkpoint import decode, encode
from regrow.methods import L2, Backprop, ContinualBackprop, Method, RandomReplacement, ReDo, ShrinkAndPerturb
from regrow.networks.layers.dropout import Dropout

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SEEDS = (3, 11, 4)
FEATURES, OUTPUTS = 12, 4
OFTEN = {"replacement_rate": 5e-3, "maturity_threshold": 20}
EACH_STEP = ContinualBackprop(**OFTEN, weight_sums="each_step")
WHEN_DUE = ContinualBackprop(**OFTEN)
ADAPTABLE = replace(EACH_STEP, utility_rule="adaptable_contribution")
ERROR = Training("squared_error")
ADAM = Training(optimizer="adam")


@dataclass(frozen=True)
class Case:
    """Methods on networks. Smooth activations, unless the activation is the matter: a pre-activation within rounding of
    the kink may be cut in one path and passed in the other.
    """

    methods: Sequence[Method]
    activation: Callable[[], nn.Module] = nn.Tanh
    training: Training = Training()
    learning_rate: float = 0.03
    widths: Sequence[int] = (16, 14)
    steps: int = 400

    @property
    def tolerance(self) -> float:
        """How far weights may part. Adam divides by how large gradients are, and with them roundings grow."""
        return 1e-4 if self.training.optimizer == "adam" else 3e-6

    @property
    def replaces(self) -> bool:
        return any(isinstance(method, ContinualBackprop | RandomReplacement) for method in self.methods)


CASES: dict[str, Case] = {
    "backprop": Case([Backprop()]),
    "relu": Case([EACH_STEP], nn.ReLU),
    "leaky-relu": Case([EACH_STEP], lambda: nn.LeakyReLU(0.2)),
    "sigmoid": Case([EACH_STEP], nn.Sigmoid),
    "elu": Case([EACH_STEP], lambda: nn.ELU(0.7)),
    "swish": Case([EACH_STEP], nn.SiLU),
    "cbp-each-step": Case([EACH_STEP]),
    "cbp-when-due": Case([WHEN_DUE]),
    "cbp-no-decay": Case([replace(EACH_STEP, decay_rate=0.0)]),
    "cbp-many-at-once": Case([replace(WHEN_DUE, replacement_rate=0.2)]),
    "cbp-bernoulli": Case([replace(EACH_STEP, budget="bernoulli")]),
    "cbp-bernoulli-many": Case([replace(WHEN_DUE, budget="bernoulli", replacement_rate=0.2)]),
    "adaptable": Case([ADAPTABLE]),
    "adaptable-when-due": Case([replace(ADAPTABLE, weight_sums="when_due")], nn.SiLU),
    "random": Case([RandomReplacement(**OFTEN)]),
    "random-bernoulli": Case([RandomReplacement(**OFTEN, budget="bernoulli")]),
    "l2": Case([L2(1e-2)]),
    "shrink-and-perturb": Case([ShrinkAndPerturb(1e-2, 1e-3)]),
    "shrink-and-perturb-7": Case([ShrinkAndPerturb(1e-2, 1e-3, period=7)]),
    "shrink": Case([ShrinkAndPerturb(1e-2, 0.0, period=3)]),
    "perturb-nothing": Case([ShrinkAndPerturb(0.0, 0.0)]),
    "all": Case([L2(1e-2), Backprop(), ShrinkAndPerturb(1e-2, 1e-3, period=7), EACH_STEP]),
    "squared-error": Case([ADAPTABLE, L2(1e-2)], training=ERROR),
    "batch": Case([EACH_STEP], training=Training(batch=8), learning_rate=0.1, steps=300),
    "batch-adaptable": Case([ADAPTABLE], training=Training("squared_error", batch=5), steps=300),
    "batch-all": Case(
        [L2(1e-2), ShrinkAndPerturb(1e-2, 1e-3), ADAPTABLE],
        training=replace(ADAM, batch=6),
        learning_rate=3e-3,
        steps=200,
    ),
    "adam": Case([L2(1e-2)], training=ADAM, learning_rate=1e-3),
    "adam-cbp": Case([EACH_STEP], training=ADAM, learning_rate=1e-3),
    "adam-all": Case(
        [ADAPTABLE, ShrinkAndPerturb(1e-2, 1e-3)], training=replace(ADAM, loss="squared_error"), learning_rate=1e-3
    ),
    "one-hidden-layer": Case([replace(EACH_STEP, replacement_rate=0.02)], widths=(5,)),
    "three-hidden-layers": Case([ADAPTABLE], widths=(9, 7, 11)),
    "no-hidden-layer": Case([L2(1e-2), ShrinkAndPerturb(1e-2, 1e-3, period=7)], widths=()),
}


def network(case: Case, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    widths = (FEATURES, *case.widths, OUTPUTS)
    for low, high in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(low, high), case.activation()]
    return nn.Sequential(*layers[:-1])


def examples(case: Case, number: int | None = None) -> tuple[Tensor, Tensor]:
    """Of all networks, each its own: inputs [S, n, features] and labels."""
    count = case.steps * case.training.batch if number is None else number
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(len(SEEDS), count, FEATURES, generator=generator) - 0.3
    teachers = torch.randn(len(SEEDS), FEATURES, OUTPUTS, generator=generator)
    outputs = (inputs @ teachers).sin()
    return inputs, outputs if case.training.loss == "squared_error" else outputs.argmax(dim=2)


def batched(case: Case, seeds: Sequence[int] = SEEDS, **settings: Any) -> BatchedLearner:
    made = [network(case, seed) for seed in seeds]
    return BatchedLearner(made, case.learning_rate, case.methods, "kaiming_uniform", seeds, case.training, **settings)


def plain(case: Case) -> list[PlainLearner]:
    return [
        PlainLearner(network(case, seed), case.learning_rate, case.methods, "kaiming_uniform", seed, case.training)
        for seed in SEEDS
    ]


def remembered(learner: PlainLearner) -> dict[str, Tensor]:
    """What the attachment remembers of the units, under the names of the batched learner."""
    names = {"contribution": "running", "activation": "running", "mean_activation": "mean_activation", "born": "born"}
    groups: dict[str, int] = {}
    found = {}
    for key, value in learner.state_dict()["attachment"].items():
        group, _, name = key.rpartition(".")
        if name in names:
            found[f"{names[name]}.{groups.setdefault(group, len(groups))}"] = value.flatten()
    return found


@pytest.mark.parametrize("name", CASES)
def test_batched_equals_plain(name: str) -> None:
    case = CASES[name]
    one_by_one, learner = plain(case), batched(case, chunk=64)
    inputs, labels = examples(case)
    before = batched(case).state_dict()["parameters"]
    window = 25 * case.training.batch
    for start in range(0, inputs.shape[1], window):
        part = slice(start, start + window)
        judged = learner.learn(inputs[:, part], labels[:, part])
        state, networks = learner.state_dict(), learner.networks()
        for number, alone in enumerate(one_by_one):
            expected = alone.learn(inputs[number, part], labels[number, part])
            torch.testing.assert_close(judged[number], expected, rtol=1e-4, atol=case.tolerance)
            # Step, group, unit of each replacement, in order.
            assert learner.events[number] == alone.events
            values = networks[number].state_dict()
            for key, value in alone.network().state_dict().items():
                torch.testing.assert_close(values[key], value, rtol=0, atol=case.tolerance)
            for key, value in remembered(alone).items():
                if key.startswith("born"):
                    assert torch.equal(state[key][number], value)
                else:
                    torch.testing.assert_close(state[key][number], value, rtol=1e-4, atol=case.tolerance)
    assert learner.replacements() == [alone.replacements() for alone in one_by_one]
    assert (learner.state_dict()["parameters"] - before).abs().max() > 0.05
    assert all(len(events) > 20 for events in learner.events) == case.replaces


@pytest.mark.parametrize("name", CASES)
def test_resume_is_bit_identical(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    inputs, labels = examples(case)
    middle = (case.steps // 2 + 3) * case.training.batch
    whole, first, second = batched(case), batched(case), batched(case)
    whole.learn(inputs[:, :middle], labels[:, :middle])
    first.learn(inputs[:, :middle], labels[:, :middle])
    (tmp_path / "state").write_bytes(encode(first.state_dict()))
    second.load_state_dict(decode(tmp_path / "state"))
    rest = inputs[:, middle:], labels[:, middle:]
    assert torch.equal(whole.learn(*rest), second.learn(*rest))
    assert_same(whole.state_dict(), second.state_dict())
    assert whole.replacements() == second.replacements()


@pytest.mark.parametrize("name", ["all", "shrink-and-perturb", "cbp-bernoulli", "random-bernoulli", "batch-all"])
def test_how_examples_are_cut_into_chunks_changes_no_bit(name: str) -> None:
    case = CASES[name]
    inputs, labels = examples(case)
    states = []
    for chunk in (1, 37, 1024):
        learner = batched(case, chunk=chunk)
        learner.learn(inputs, labels)
        states.append(learner.state_dict())
    assert_same(states[0], states[1])
    assert_same(states[0], states[2])


def test_the_last_mini_batch_may_be_smaller() -> None:
    case = CASES["batch-adaptable"]
    inputs, labels = examples(case, 5 * 40 + 3)
    one_by_one, learner = plain(case), batched(case)
    for _ in range(2):
        judged = learner.learn(inputs, labels)
        for number, alone in enumerate(one_by_one):
            torch.testing.assert_close(
                judged[number], alone.learn(inputs[number], labels[number]), rtol=1e-4, atol=case.tolerance
            )
    assert learner.events == [alone.events for alone in one_by_one]
    assert learner.events[0][-1].step > 41


def test_a_network_does_not_depend_on_its_neighbours() -> None:
    case = CASES["all"]
    inputs, labels = examples(case)
    together, alone = batched(case), batched(case, SEEDS[1:2])
    together.learn(inputs, labels)
    alone.learn(inputs[1:2], labels[1:2])
    assert together.events[1] == alone.events[0]
    for one, two in zip(together.networks()[1].parameters(), alone.networks()[0].parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=case.tolerance)


def test_nothing_to_learn() -> None:
    learner = batched(CASES["all"])
    before = learner.state_dict()
    assert learner.learn(torch.zeros(3, 0, FEATURES), torch.zeros(3, 0, dtype=torch.int64)).shape == (3, 0)
    assert_same(learner.state_dict(), before)


@pytest.mark.parametrize("budget", ["carried", "bernoulli"])
def test_nan_in_one_network_leaves_the_others_alone(budget: str) -> None:
    case = Case([replace(EACH_STEP, budget=budget)], steps=200)
    inputs, labels = examples(case)
    disturbed = inputs.clone()
    disturbed[1, 120, 3] = float("nan")
    learner, undisturbed = batched(case), batched(case)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learner.learn(disturbed[:, :150], labels[:, :150])
        learner.learn(disturbed[:, 150:], labels[:, 150:])
    told = sorted(str(warning.message) for warning in caught)
    assert len(told) == 2
    for message, size, group in zip(told, (14, 16), ("'2'", "'0'"), strict=True):
        assert f"{size} of {size} units of group {group} of network 1 by step 150" in message
    undisturbed.learn(inputs, labels)
    assert learner.replacements() == undisturbed.replacements()
    alone = PlainLearner(network(case, SEEDS[1]), case.learning_rate, case.methods, "kaiming_uniform", SEEDS[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone.learn(disturbed[1], labels[1])
    assert learner.events[1] == alone.events
    for number in (0, 2):
        assert learner.events[number] == undisturbed.events[number]
        values = undisturbed.networks()[number].state_dict()
        for key, value in learner.networks()[number].state_dict().items():
            assert torch.equal(value, values[key])


@pytest.mark.parametrize(
    ("methods", "layers", "training", "reason"),
    [
        ([ReDo()], (nn.Tanh(),), Training(), "it does not know ReDo"),
        ([Backprop()], (nn.GELU(),), Training(), "module '1' is a GELU"),
        ([Backprop()], (nn.Tanh(), Dropout(0.1, 0)), Training(batch=4), "it does not know Dropout"),
        ([Backprop()], (nn.Tanh(),), Training(momentum=0.9, batch=4), "without momentum, which is 0.9"),
        ([replace(WHEN_DUE, budget="carried_of_all")], (nn.Tanh(),), Training(), "budget='carried_of_all'"),
    ],
)
def test_what_it_cannot_take_on(
    methods: Sequence[Method], layers: Sequence[nn.Module], training: Training, reason: str
) -> None:
    made = nn.Sequential(nn.Linear(4, 3), *layers, nn.Linear(3, 2))
    with pytest.raises(ConfigError, match=f"side by side, because .*{reason}.*build_learner"):
        BatchedLearner([made], 0.01, methods, training=training)


def test_networks_that_do_not_go_together() -> None:
    case = CASES["relu"]
    assert batched_reason([], case.methods) == "there is none"
    other = network(replace(case, widths=(16, 15)), 0)
    assert batched_reason([network(case, 0), other], case.methods) == "they do not all have the same layers"
    assert batched_reason([network(case, 0), network(case, 1)], case.methods, training=Training(batch=9)) is None
    with pytest.raises(ConfigError, match=r"There are 1 seeds for 2 networks: \[5\]. Give one seed for each."):
        BatchedLearner([network(case, 0), network(case, 1)], 0.01, case.methods, seeds=[5])


@pytest.mark.parametrize(
    ("name", "inputs", "labels", "message"),
    [
        ("relu", torch.zeros(3, 2, 11), torch.zeros(3, 2, dtype=torch.int64), r"\[3, 2, 11\].*float32 \[3, n, 12\]"),
        ("relu", torch.zeros(2, 2, 12), torch.zeros(2, 2, dtype=torch.int64), r"the 3 networks take float32 \[3, n, "),
        ("relu", torch.zeros(3, 2, 12), torch.zeros(3, 2), r"labels is torch.float32 \[3, 2\].*must be int64 \[3, 2\]"),
        ("relu", torch.zeros(3, 1, 12), torch.tensor([[0], [4], [1]]), "labels go from 0 to 4, but.*have 4 outputs"),
        ("squared-error", torch.zeros(3, 2, 12), torch.zeros(3, 2), r"must be float32 \[3, 2, 4\]"),
    ],
)
def test_examples_that_do_not_fit(name: str, inputs: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        batched(CASES[name]).learn(inputs, labels)


def test_state_of_another_learner_is_refused() -> None:
    case = CASES["cbp-each-step"]
    learner = batched(case)
    with pytest.raises(StateError, match=r"saved by another one(.|\n)*seeds \[3, 11, 5\](.|\n)*seeds \[3, 11, 4\]"):
        learner.load_state_dict(batched(case, (3, 11, 5)).state_dict())
    with pytest.raises(StateError, match="not by the batched engine"):
        learner.load_state_dict(plain(case)[0].state_dict())


class Rerun:
    """Stands for a graph where none can be recorded: takes the steps again that it holds."""

    def __init__(self, step: Step, held: Batches, results: Tensor) -> None:
        self.replay = lambda: run_eagerly(step, held, results)


class RerunGraphs(StepGraphs):
    def _record(self, count: int, batches: Batches, judged: Tensor) -> Any:
        inputs, labels, noise = (
            None if given is None else torch.zeros(count, *given.shape[1:], dtype=given.dtype) for given in batches
        )
        results = torch.zeros(count, *judged.shape[1:], dtype=judged.dtype)
        return Rerun(self._step, (inputs, labels, noise), results), (inputs, labels, noise), results


@pytest.mark.parametrize("unroll", [1, 3, 8])
@pytest.mark.parametrize(
    "name", ["all", "shrink", "shrink-and-perturb", "cbp-bernoulli", "batch-adaptable", "adam-all"]
)
def test_how_steps_are_put_into_launches_changes_no_bit(name: str, unroll: int) -> None:
    case = CASES[name]
    inputs, labels = (value[:, :-2] for value in examples(case))
    one, two = batched(case), batched(case)
    two._graphs = RerunGraphs(two._step, list(two._held.tensors().values()), unroll)
    assert torch.equal(one.learn(inputs, labels), two.learn(inputs, labels))
    assert one.events == two.events
    assert_same(one.state_dict(), two.state_dict())


@contextmanager
def no_waiting() -> Iterator[None]:
    """Whatever makes the host wait for the device raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_graphs_equal_steps_one_by_one_and_do_not_wait(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    graphs, eager, host = batched(case, device="cuda"), batched(case, device="cuda", unroll=0), batched(case)
    advance = BatchedLearner._advance

    def checked(self: BatchedLearner, chunk: Any) -> None:
        with no_waiting():
            advance(self, chunk)

    inputs, labels = examples(case)
    with monkeypatch.context() as patch:
        patch.setattr(BatchedLearner, "_advance", checked)
        results = [learner.learn(inputs, labels) for learner in (graphs, eager, host)]
    for other, result in ((eager, results[1]), (host, results[2])):
        torch.testing.assert_close(results[0], result, rtol=1e-3, atol=10 * case.tolerance)
        assert graphs.events == other.events
        state = other.state_dict()
        for key, value in graphs.state_dict().items():
            if isinstance(value, Tensor):
                torch.testing.assert_close(value, state[key], rtol=1e-3, atol=10 * case.tolerance)


@needs_gpu
def test_state_moves_between_devices() -> None:
    case = CASES["all"]
    inputs, labels = examples(case)
    whole, first, second = batched(case), batched(case, device="cuda"), batched(case)
    first.learn(inputs[:, :200], labels[:, :200])
    second.load_state_dict(first.state_dict())
    second.learn(inputs[:, 200:], labels[:, 200:])
    whole.learn(inputs, labels)
    assert [[event for event in events if event.step > 200] for events in whole.events] == second.events


def assert_same(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one.keys() == two.keys()
    for key, value in one.items():
        if isinstance(value, dict):
            assert_same(value, two[key])
        elif isinstance(value, Tensor):
            assert torch.equal(value, two[key]), key
        else:
            assert value == two[key], key
