import math

import pytest
import torch

from regrow.errors import StateError, StoreError
from regrow.experiments.checkpoint import decode, encode


def tree():
    shared = torch.arange(6.0).reshape(2, 3)
    generator = torch.Generator().manual_seed(1)
    return {
        "optimizer": {0: {"step": torch.tensor(3.0)}, 1: {}},
        "weights": [shared, shared.T, torch.empty(0), torch.ones(2, dtype=torch.bool)],
        "betas": (0.9, 0.1 + 0.2),
        "generator": generator.get_state(),
        "numbers": [0, -1, 2**70, True, None, "word", math.inf, 1e-300],
        "": {"a.b": 1, "a": {"b": 2}},
    }


def same(left, right):
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right) and left.dtype == right.dtype and left.shape == right.shape
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


def test_a_tree_comes_back_as_it_was(tmp_path):
    place = tmp_path / "state"
    place.write_bytes(encode(tree()))
    assert same(decode(place), tree())


def test_the_same_tree_gives_the_same_bytes():
    assert encode(tree()) == encode(tree())


def test_tensor_names_do_not_run_into_each_other(tmp_path):
    one, two = torch.tensor(1), torch.tensor(2)
    place = tmp_path / "state"
    place.write_bytes(encode({"a.b": one, "a": {"b": two}}))
    assert same(decode(place), {"a.b": one, "a": {"b": two}})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [object()]}, r"^state\.a\.0 is a object: a checkpoint holds"),
        ({"a": {(1, 2): 3}}, r"^state\.a has the key \(1, 2\): a checkpoint holds keys"),
        ({True: 1}, r"^state has the key True"),
    ],
)
def test_what_it_cannot_hold_is_refused_with_its_place(value, message):
    with pytest.raises(StateError, match=message):
        encode(value)


@pytest.mark.parametrize("cut", [0, 4, 20, -1])
def test_a_truncated_file_is_refused(tmp_path, cut):
    place = tmp_path / "state"
    place.write_bytes(encode(tree())[:cut])
    with pytest.raises(
        StoreError, match=f"{place} is damaged and cannot be resumed from .*: delete the folder {tmp_path}"
    ):
        decode(place)


def test_a_changed_bit_is_refused(tmp_path):
    place = tmp_path / "state"
    data = encode({"weight": torch.zeros(4)})
    place.write_bytes(data[:-1] + b"\x01")
    with pytest.raises(StoreError, match=r"cannot be resumed from \(its content is not what was written\): delete"):
        decode(place)


def test_a_foreign_file_is_refused(tmp_path):
    from safetensors.torch import save

    place = tmp_path / "state"
    place.write_bytes(save({"weight": torch.zeros(1)}))
    with pytest.raises(StoreError, match="is damaged"):
        decode(place)
