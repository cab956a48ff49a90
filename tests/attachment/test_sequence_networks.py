"""Replacement in attention, recurrent networks and embeddings, as on every kind of network."""

import pytest
import torch

import regrow
from tests.attachment.test_networks import train_and_check
from tests.units.hand_written import Case
from tests.units.sequence_networks import SEQUENCES

KINDS = (
    "transformer encoder layer",
    "transformer encoder layer, norms first",
    "cross-attention",
    "lstm",
    "bidirectional lstm",
    "gru",
    "rnn cell in a loop",
    "language model",
    "vision transformer",
    "learned queries",
    "embedding",
    "gated units in a stream, RootMeanSquare",
)


@pytest.mark.parametrize("case", [case for case in SEQUENCES if case.name in KINDS], ids=lambda case: case.name)
def test_replacements_are_clean(case: Case) -> None:
    model, example = case.build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.001)
    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(0.1, 1), example=example)
    train_and_check(plastic, example, steps=8)


def test_the_state_of_a_recurrent_layer_is_read_where_the_layer_returns_it() -> None:
    model, example = next(case for case in SEQUENCES if case.name == "lstm").build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(0.1, 1), example=example)
    group = plastic.graph["r.weight_ih_l1"]
    taps = {part.parameter: part.tap for part in group.having("outgoing")}
    assert (taps["out.weight"].module, taps["out.weight"].where, taps["out.weight"].exact) == ("out", "input", True)
    own = taps["r.weight_hh_l1"]
    assert (own.module, own.where, own.position, own.exact) == ("r", "output", 0, False)
    inner = {part.parameter: part.tap for part in plastic.graph["r.weight_ih_l0"].having("outgoing")}
    assert inner["r.weight_hh_l0"] is None
