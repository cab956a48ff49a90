import regrow
from tests.methods.by_hand import assert_equal, attached, descended, does_nothing, gradients, step, values


def test_is_plain_gradient_descent() -> None:
    model, optimizer, _ = attached(regrow.Backprop())
    before = values(model)
    step(model, optimizer)
    assert_equal(model, descended(before, gradients(before)))
    assert does_nothing(regrow.Backprop())
