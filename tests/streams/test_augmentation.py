import math

import pytest
import torch

from regrow.streams.augmentation import augment, gather

NO_FLIP, NO_SHIFT, NO_TURN = torch.tensor([False]), torch.zeros(2, 1, dtype=torch.int64), torch.zeros(1)


def numbered(height=4, width=4):
    """One image of one colour whose pixels are all different, and none of them 0."""
    return torch.arange(1.0, height * width + 1).view(1, 1, height, width)


def test_nothing_drawn_is_nothing_changed():
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(gather(images, NO_FLIP, NO_SHIFT, NO_TURN), images)


def test_a_flip_is_from_left_to_right():
    images = numbered()
    assert torch.equal(gather(images, ~NO_FLIP, NO_SHIFT, NO_TURN), images.flip(3))


@pytest.mark.parametrize("shift", [(0, 0), (-3, 2), (2, -2), (3, 3)])
def test_a_crop_is_cut_out_of_the_image_with_a_reflected_border(shift):
    images = numbered(5, 6)
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4), mode="reflect")
    down, right = shift
    expected = padded[:, :, 4 + down : 9 + down, 4 + right : 10 + right]
    assert torch.equal(gather(images, NO_FLIP, torch.tensor(shift)[:, None], NO_TURN), expected)


@pytest.mark.parametrize("size", [4, 5])
def test_a_quarter_turn_is_anticlockwise(size):
    images = numbered(size, size)
    turned = gather(images, NO_FLIP, NO_SHIFT, torch.tensor([math.pi / 2]))
    assert torch.equal(turned, images.rot90(1, dims=(2, 3)))


def test_any_turn_is_that_of_a_grid_with_the_nearest_pixel():
    """As torchvision's rotation of a tensor does it, whose matrix for an anticlockwise turn this is."""
    random = torch.Generator().manual_seed(0)
    images = torch.randn(50, 3, 32, 32, generator=random)
    angle = torch.rand(50, generator=random) * math.radians(15)
    cosine, sine, none = angle.cos(), angle.sin(), torch.zeros(50)
    matrix = torch.stack([torch.stack([cosine, -sine, none], 1), torch.stack([sine, cosine, none], 1)], 1)
    grid = torch.nn.functional.affine_grid(matrix, list(images.shape), align_corners=False)
    expected = torch.nn.functional.grid_sample(images, grid, mode="nearest", align_corners=False)
    turned = gather(images, NO_FLIP.expand(50), NO_SHIFT.expand(2, 50), angle)
    # Where a place lies halfway between two pixels, rounding may choose the other one.
    assert (turned != expected).float().mean() < 1e-3


def test_beyond_the_corners_of_a_turned_image_there_is_nothing():
    turned = gather(torch.ones(1, 1, 32, 32), NO_FLIP, NO_SHIFT, torch.tensor([math.radians(15)]))[0, 0]
    assert not turned[0, 0] and not turned[0, -1] and not turned[-1, 0] and not turned[-1, -1]
    assert turned[4:-4, 4:-4].all()
    assert 0.85 < turned.mean() < 0.95


def test_first_flipped_then_cropped_then_turned():
    images, shift = numbered(5, 5), torch.tensor([[1], [-2]])
    quarter = torch.tensor([math.pi / 2])
    step = gather(images, ~NO_FLIP, NO_SHIFT, NO_TURN)
    step = gather(step, NO_FLIP, shift, NO_TURN)
    step = gather(step, NO_FLIP, NO_SHIFT, quarter)
    assert torch.equal(gather(images, ~NO_FLIP, shift, quarter), step)


def test_each_image_has_its_own_draws_and_they_are_those_of_the_generator():
    images = torch.rand(1, 3, 32, 32).expand(64, -1, -1, -1)
    once, again = (augment(images, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(once, again)
    assert len(once.unique(dim=0)) >= 60  # small angles may move no pixel
    assert not torch.equal(once, augment(images, torch.Generator().manual_seed(8)))


def test_what_is_drawn_follows_its_law(monkeypatch):
    drawn = {}

    def keep(images, flip, shift, angle):
        drawn.update(flip=flip, shift=shift, angle=angle)
        return images

    monkeypatch.setattr("regrow.streams.augmentation.gather", keep)
    augment(torch.zeros(9000, 1, 8, 8), torch.Generator().manual_seed(0))
    assert 0.47 < drawn["flip"].float().mean() < 0.53
    for shift in drawn["shift"]:
        counts = torch.bincount(shift + 4, minlength=9)
        assert len(counts) == 9 and counts.min() > 850
    assert 0 <= drawn["angle"].min() and 14.9 < math.degrees(drawn["angle"].max()) <= 15
    assert 7.2 < math.degrees(drawn["angle"].mean()) < 7.8
