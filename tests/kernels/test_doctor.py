"""What the doctor sees."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from keras_attn.kernels import cores, doctor

TRAINING = Path(__file__).parents[2] / "benchmarks" / "training.json"
INFO = "processor\t: 0\nflags\t\t: fpu avx2 amx_bf16 avx512_bf16\n\nprocessor\t: 1\nflags\t: fpu\n"


def found():
    return {finding.name: finding for finding in doctor.findings()}


def test_flags_are_read_off_the_first_processor():
    assert doctor.flags(INFO) == {"fpu", "avx2", "amx_bf16", "avx512_bf16"}
    assert doctor.flags("") == set()
    assert doctor.flags("processor\t: 0\nFeatures\t: fp asimd bf16\n") == {"fp", "asimd", "bf16"}


@pytest.mark.parametrize("has, fast", [({"amx_bf16"}, True), ({"avx2"}, False)])
def test_half_precision_is_advised_where_it_is_fast(monkeypatch, has, fast):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(doctor, "flags", lambda: has)
    assert bool(found()["bfloat16"].advice) == fast
    assert ("amx_bf16" in found()["bfloat16"].found) == fast
    monkeypatch.setattr(doctor, "flags", set)
    assert "unknown" in found()["bfloat16"].found and not found()["bfloat16"].advice


def test_half_precision_is_not_judged_on_other_processors(monkeypatch):
    monkeypatch.setattr(doctor, "flags", lambda: {"asimd", "bf16"})
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert found()["bfloat16"] == ("bfloat16", "not measured on aarch64", "")


def test_splitting_is_advised_until_it_is_done(monkeypatch):
    monkeypatch.setattr(cores, "available", lambda: 2)
    monkeypatch.setattr(cores, "_parts", 2)
    monkeypatch.setattr(cores, "_configured", False)
    assert "configure_cpu" in found()["threads"].advice
    monkeypatch.setattr(cores, "_configured", True)
    assert found()["threads"].advice == ""
    assert "2 cores" in found()["threads"].found
    monkeypatch.setattr(cores, "_parts", 1)
    assert found()["threads"].found.startswith("whole batches")
    monkeypatch.setattr(cores, "_configured", False)
    monkeypatch.setattr(cores, "available", lambda: 1)
    assert found()["threads"].advice == ""


@pytest.mark.parametrize("value, on", [("0", False), ("1", True)])
def test_onednn(monkeypatch, value, on):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", value)
    monkeypatch.setattr(doctor, "flags", lambda: {"amx_bf16"})
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert (found()["oneDNN"].found == "on") == on
    assert bool(found()["oneDNN"].advice) != on
    assert bool(found()["bfloat16"].advice) == on  # which needs it
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert found()["oneDNN"].found.startswith("unknown") == on


def test_nothing_is_promised_of_one_core_nor_beside_a_gpu(monkeypatch):
    monkeypatch.setattr(doctor, "flags", lambda: {"amx_bf16"})
    monkeypatch.setattr(cores, "available", lambda: 1)
    assert "bfloat16" in found()["bfloat16"].advice and "both" not in found()["bfloat16"].advice
    monkeypatch.setattr(doctor.tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    assert not found()["bfloat16"].advice and not found()["threads"].advice


def test_the_library_says_where_recurrences_run():
    assert "kernels" in found()["GPU"].found or "cuDNN" in found()["GPU"].found


@pytest.mark.parametrize("what", doctor.GAINS)
def test_gains_are_those_of_the_benchmark(what):
    times = []
    for section in json.loads(TRAINING.read_text()).values():
        medians = {
            c["label"]: c["seconds"]["median"] for c in section["contestants"] if c["seconds"]
        }
        if f"keras_attn, {what}" in medians:
            times.append(medians["keras_attn"] / medians[f"keras_attn, {what}"])
    assert len(times) >= 4
    assert (round(min(times), 1), round(max(times), 1)) == doctor.GAINS[what]


def test_advice_names_its_gain(monkeypatch):
    monkeypatch.setattr(cores, "available", lambda: 2)
    monkeypatch.setattr(cores, "_configured", False)
    monkeypatch.setattr(cores, "_parts", 2)
    monkeypatch.setattr(doctor, "flags", lambda: {"amx_bf16"})
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert "1.1 to 1.3 times" in found()["threads"].advice
    assert "1.1 to 1.4 times" in found()["bfloat16"].advice
