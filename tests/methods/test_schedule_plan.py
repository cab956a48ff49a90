"""Planning many steps at once equals advancing one by one."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.methods.schedule import Quota


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(1, 40),
    rate=st.sampled_from([0.0, 1e-4, 0.003, 1 / 3, 0.1, 0.75, 1.0]),
    maturity=st.integers(0, 30),
    chunks=st.lists(st.integers(0, 120), max_size=6),
)
def test_plan_equals_advance(size: int, rate: float, maturity: int, chunks: list[int]) -> None:
    planned, stepped = Quota(size, rate, maturity), Quota(size, rate, maturity)
    generator = torch.Generator()
    for steps in chunks:
        dues = [(step, stepped.advance(generator)) for step in range(1, steps + 1)]
        assert planned.plan(steps) == [(step, due) for step, due in dues if due]
        assert torch.equal(planned.state(), stepped.state())
