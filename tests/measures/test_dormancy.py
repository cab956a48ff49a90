import torch

from regrow.measures import activity, dormant_share


def test_counts_units_that_fire_in_less_than_the_share() -> None:
    activations = torch.zeros(1000, 4)
    activations[:10, 1] = 1.0  # 1 %
    activations[:9, 2] = -0.5  # 0.9 %, and negative values fire too
    activations[:, 3] = 2.0
    torch.testing.assert_close(activity(activations), torch.tensor([0.0, 0.01, 0.009, 1.0]))
    assert dormant_share(activations) == 0.5
    assert dormant_share(activations, threshold=0) == 0.25
