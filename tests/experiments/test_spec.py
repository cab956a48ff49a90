import dataclasses
import json

import pytest

from regrow.errors import StoreError
from regrow.experiments.spec import RunSpec


def test_the_key_depends_on_every_field_and_not_on_the_order_of_keys(spec):
    assert spec.key == "da9afa8b69f9f944"
    turned = dataclasses.replace(spec, problem=dict(reversed(spec.problem.items())))
    assert turned.key == spec.key
    others = {
        "study": "b",
        "scale": "laptop",
        "method": "m",
        "methods": (),
        "seed": 4,
        "engine": "fused",
        "problem": {},
        "beside": (5,),
    }
    changed = {dataclasses.replace(spec, **{name: value}).key for name, value in others.items()}
    assert len(changed | {spec.key}) == len(dataclasses.fields(RunSpec)) + 1


def test_json_and_back(spec):
    again = RunSpec.from_json(spec.to_json(), "here")
    assert again.key == spec.key
    assert again.tasks == 4


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"{}", json.dumps({"study": "a", "colour": "red"}).encode(), b"\xff"]
)
def test_what_is_no_spec_is_refused(data):
    with pytest.raises(
        StoreError, match="^runs/a/spec.json does not hold the spec of a run .*: delete its folder to run"
    ):
        RunSpec.from_json(data, "runs/a/spec.json")


def test_a_field_too_many_is_refused(spec):
    data = json.dumps(json.loads(spec.to_json()) | {"colour": "red"}).encode()
    with pytest.raises(StoreError, match="colour"):
        RunSpec.from_json(data, "here")


def test_a_spec_of_a_newer_regrow_is_told_as_such(spec):
    values = json.loads(spec.to_json()) | {"format": 2, "weather": "fine"}
    with pytest.raises(StoreError, match=r"spec.json was written by a newer regrow \(format 2; .*: update regrow"):
        RunSpec.from_json(json.dumps(values).encode(), "runs/spec.json")
