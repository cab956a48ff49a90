import subprocess

import pytest

from regrow.experiments.spec import RunSpec


@pytest.fixture
def spec():
    method = {"name": "l2", "settings": {"strength": 1e-3}}
    return RunSpec("a-study", "smoke", "l2", (method,), 3, "plain", {"tasks": 4, "learning_rate": 0.01})


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system with room for 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a tiny file system can be mounted by root only")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
