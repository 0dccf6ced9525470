"""What the bench makes of a child that failed, and the order of its rows; the figures are the machine's."""

import pytest
from benches import exporting, latency, rounds, watched_export

from export import pipeline


@pytest.mark.smoke
def test_a_call_that_was_refused_is_no_measurement(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "POST_TRAINING", ["onnx"])
    monkeypatch.setattr(exporting.keras_resnet, "ResNet152", exporting.keras_resnet.ResNet8)
    with pytest.raises(RuntimeError, match="ended with code 2: Error: Expected formats among"):
        exporting.memory()


@pytest.mark.unit
def test_a_file_that_was_not_made_is_no_measurement(monkeypatch):
    results = {"int8": pipeline.Result("file", None, ["refused"]), "int4": pipeline.Result(None, None, ["no kernel"])}
    monkeypatch.setattr(watched_export, "produce", results.get)
    monkeypatch.setattr(watched_export, "held", [])
    watched_export.produced("int8")
    assert [name for name, _ in watched_export.held] == ["int8"]
    with pytest.raises(RuntimeError, match="int4 was not made: no kernel"):
        watched_export.produced("int4")


@pytest.mark.unit
def test_rows_of_the_latency_come_in_the_order_of_the_rivals(monkeypatch, capsys):
    """A set's order would vary between runs."""
    rivals = dict.fromkeys(("ours", *"edcbafgh"))
    monkeypatch.setattr(latency, "rivals_of", lambda folder: (rivals, {}))
    monkeypatch.setattr(latency, "race", lambda files, threads: {name: [1.0] for name in [*files, "int8 ours"]})
    monkeypatch.setattr(rounds, "OVER", [])
    latency.latency()
    rows = [line.split(" against ")[1].split()[0] for line in capsys.readouterr().out.splitlines()]
    assert rows == [*"edcbafgh", "our"] * 2
