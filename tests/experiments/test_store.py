import errno
import os
from pathlib import Path

import pytest
import torch

from regrow.errors import StoreError
from regrow.experiments.store import RunFolder, find_folders, write_atomically


def row(task):
    return {"task": task, "accuracy": 0.1 * task}


def go(folder, tasks, saved=None):
    """Do some tasks of a run, with a checkpoint after `saved` of them."""
    for task in tasks:
        folder.append(row(task), {"task": task, "seconds": 1.5})
        if task + 1 == saved:
            folder.save(task + 1, {"weight": torch.full((2,), task)})


@pytest.fixture
def folder(tmp_path, spec):
    return RunFolder.create(tmp_path, spec)


def test_a_run_from_the_first_row_to_done(folder, spec, tmp_path):
    import polars

    assert folder.path == tmp_path / "a-study" / spec.key
    assert folder.spec().key == spec.key
    assert folder.state() == "waiting"
    assert folder.resume() == (0, None)
    go(folder, range(4), saved=4)
    assert folder.state() == "stopped"
    folder.finish()
    assert folder.state() == "done"
    assert polars.read_parquet(folder.parquet).to_dicts() == [row(task) for task in range(4)]
    assert [each["seconds"] for each in folder.timings()] == [1.5] * 4
    left = {path.name for path in folder.path.iterdir()} - {"lock"}
    assert left == {"spec.json", "curve.parquet", "timing.jsonl", "checkpoint.safetensors", "DONE"}


def test_resume_drops_the_rows_after_the_checkpoint_and_a_torn_line(folder):
    go(folder, range(3), saved=2)
    whole = (folder.path / "curve.jsonl").read_bytes()
    with open(folder.path / "curve.jsonl", "ab") as file:
        file.write(b'{"task":3,"accu')
    assert [each["task"] for each in folder.rows()] == [0, 1, 2]
    task, state = folder.resume()
    assert task == 2
    assert torch.equal(state["weight"], torch.full((2,), 1))
    assert (folder.path / "curve.jsonl").read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])
    assert len(folder.timings()) == 2


def test_without_a_checkpoint_it_begins_again(folder):
    go(folder, range(2))
    assert folder.resume() == (0, None)
    assert folder.rows() == []


def test_killed_between_the_curve_and_done_it_finishes_again(folder):
    go(folder, range(4), saved=4)
    folder.finish()
    expected = folder.parquet.read_bytes()
    (folder.path / "DONE").unlink()
    (folder.path / "curve.jsonl").write_bytes(b"".join(b'{"task":%d,"accuracy":%r}\n' % (t, 0.1 * t) for t in range(4)))
    assert folder.resume()[0] == 4
    folder.finish()
    assert folder.parquet.read_bytes() == expected


def damage_spec(folder):
    (folder.path / "spec.json").write_bytes(folder.spec().to_json().replace(b'"seed":3', b'"seed":4'))
    return folder.spec


def damage_checkpoint(folder):
    place = folder.path / "checkpoint.safetensors"
    place.write_bytes(place.read_bytes()[:-3])
    return folder.resume


def damage_row(folder):
    place = folder.path / "curve.jsonl"
    place.write_bytes(place.read_bytes().replace(b'{"task":1', b'{"tusk":1'))
    return folder.resume


def damage_row_of_a_running_one(folder):
    damage_row(folder)
    return folder.rows


def change_figure(folder):
    place = folder.path / "curve.jsonl"
    place.write_bytes(place.read_bytes().replace(b'"accuracy":0.1', b'"accuracy":0.7'))
    return folder.resume


def lose_rows(folder):
    (folder.path / "curve.jsonl").unlink()
    return folder.resume


def lose_timing(folder):
    (folder.path / "timing.jsonl").write_bytes(b"")
    return folder.resume


def lose_curve(folder):
    folder.finish()
    folder.parquet.unlink()
    return folder.is_done


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_spec, r"spec\.json does not match its folder: its key is \w{16}, so it was changed\. Delete"),
        (damage_checkpoint, r"checkpoint\.safetensors is damaged and cannot be resumed from .*: delete"),
        (damage_row, r"curve\.jsonl is damaged: line 2 is not the row of task 1\. Delete"),
        (damage_row_of_a_running_one, r"curve\.jsonl is damaged: line 2 is not the row of task 1\. Delete"),
        (change_figure, r"curve\.jsonl is damaged: its rows are not those that were there when its .* saved\. Delete"),
        (lose_rows, r"curve\.jsonl is damaged: it has 0 rows and its checkpoint needs 4\. Delete"),
        (lose_timing, r"timing\.jsonl is damaged: it has 0 rows and its checkpoint needs 4\. Delete"),
        (lose_curve, r"DONE is damaged: it says that the run is done, but curve\.parquet is missing\. Delete"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_file_and_what_to_do(folder, damage, message):
    go(folder, range(4), saved=4)
    with pytest.raises(StoreError, match=message) as caught:
        damage(folder)()
    assert f"{folder.path} to run it again" in str(caught.value)


def test_a_missing_spec_is_refused(folder):
    (folder.path / "spec.json").unlink()
    with pytest.raises(StoreError, match=r"spec\.json cannot be read \(No such file or directory\): delete the folder"):
        folder.spec()


def test_a_folder_of_another_spec_is_refused_at_creation(folder, spec):
    (folder.path / "spec.json").write_bytes(b"{}")
    with pytest.raises(StoreError, match="does not hold the spec of a run"):
        RunFolder.create(folder.path.parent.parent, spec)


def test_looking_writes_nothing(folder, tmp_path):
    assert folder.state() == "waiting"
    assert [path.name for path in folder.path.iterdir()] == ["spec.json"]
    assert RunFolder(tmp_path / "not" / "there").state() == "waiting"


@pytest.mark.parametrize("name", ["lock", "error.txt", "curve.jsonl", "checkpoint.safetensors"])
def test_a_folder_in_place_of_a_file_is_told(folder, name):
    (folder.path / name).mkdir()
    with pytest.raises(StoreError, match=f"{folder.path / name} (cannot be read|could not be written|is damaged)"):
        with folder.locked():
            folder.resume()


def test_a_folder_that_may_not_be_read_is_told(folder, monkeypatch):
    def refuse(path, **how):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(type(folder.path), "stat", refuse)
    for look in (folder.is_done, folder.state, folder.resume):
        with pytest.raises(StoreError, match=r" cannot be read \(Permission denied\): make it readable, or delete"):
            look()


def test_only_one_holds_a_run(folder):
    with folder.locked() as first, folder.locked() as second:
        assert (first, second) == (True, False)
        assert folder.state() == "running"
    with folder.locked() as again:
        assert again


def test_who_holds_a_run_clears_what_a_killed_attempt_left(folder):
    leftover = folder.path / ".checkpoint.safetensors.123.tmp"
    leftover.write_bytes(b"half")
    folder.fail("Traceback")
    assert folder.state() == "failed"
    with folder.locked():
        assert not leftover.exists()
    assert folder.state() == "waiting"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    place = tmp_path / "file"
    write_atomically(place, b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StoreError, match=f"^{place} could not be written .No space left on device.: .*Make room"
    ) as caught:
        write_atomically(place, b"new")
    assert isinstance(caught.value, OSError)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert place.read_bytes() == b"old"


def test_a_full_disk_leaves_a_run_that_can_go_on(tiny_disk, spec):
    folder = RunFolder.create(tiny_disk, spec)
    go(folder, range(1), saved=1)
    with pytest.raises(StoreError, match=r"checkpoint\.safetensors could not be written \(No space left on device\)"):
        folder.save(2, {"weight": torch.zeros(100_000)})
    with pytest.raises(StoreError, match=r"curve\.jsonl could not be written \(No space left on device\)"):
        folder.append({"task": 1, "filling": "x" * 100_000}, {})
    assert not list(folder.path.glob(".*"))
    task, state = folder.resume()
    assert task == 1
    assert torch.equal(state["weight"], torch.zeros(2, dtype=torch.long))
    assert [each["task"] for each in folder.rows()] == [0]


def test_a_full_disk_at_the_start_is_told(tiny_disk, spec):
    (tiny_disk / "filling").write_bytes(b"x" * 65536)
    with pytest.raises(StoreError, match="could not be written .No space left on device."):
        RunFolder.create(tiny_disk, spec)


def test_folders_are_found_from_above_and_from_within(folder, tmp_path, monkeypatch):
    for place in (tmp_path, tmp_path / "a-study", folder.path):
        assert [found.path for found in find_folders(place)] == [folder.path]
        monkeypatch.chdir(place)
        assert [found.path for found in find_folders(Path("."))] == [folder.path]
    with pytest.raises(StoreError, match=f"^There are no runs in {tmp_path / 'nothing'}: give the folder that"):
        find_folders(tmp_path / "nothing")
