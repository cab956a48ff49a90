import pytest

from benchmarks import coupling


def test_every_network_has_units_that_leak(capsys: pytest.CaptureFixture[str]) -> None:
    coupling.main(widths=(8, 16))
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header == "| network | width 8 | width 16 |"
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(coupling.NETWORKS)
    assert all(float(leak.strip(" |")) > 0 for row in rows for leak in row.split(" | ")[1:])
