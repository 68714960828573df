"""Weights as common training codes write them, and files that are none."""

import argparse
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

from mibench.errors import UserError
from mibench.nn.foreign import load


def network():
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), norm=nn.BatchNorm2d(2), out=nn.Linear(8, 3)))


@pytest.fixture
def state():
    torch.manual_seed(1)
    return {name: value + 0.5 if value.is_floating_point() else value for name, value in network().state_dict().items()}


def prefixed(state, prefix):
    return {f"{prefix}{name}": value for name, value in state.items()}


def loaded(content, tmp_path, module=None):
    module = network() if module is None else module
    torch.save(content, tmp_path / "w.pt")
    load(module, str(tmp_path / "w.pt"))
    return module.state_dict()


def refused(content, tmp_path, module=None):
    with pytest.raises(UserError) as caught:
        loaded(content, tmp_path, module)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "net.", "module._orig_mod.",
                                    "model._orig_mod.", "model.net.", "something.own."])  # fmt: skip
@pytest.mark.parametrize("keys", [(), ("state_dict",), ("model",), ("ema",), ("weights", "model"), ("own", "key")])
def test_weights_are_found_below_keys_and_prefixes(prefix, keys, state, tmp_path):
    content = prefixed(state, prefix)
    for key in reversed(keys):
        content = {key: content, "epoch": 3}
    found = loaded(content, tmp_path)
    assert all(torch.equal(found[name], value) for name, value in state.items() if value.is_floating_point())


def test_segments_inside_names_are_found(state, tmp_path):
    """A compiled or parallel part of the network."""
    for inside in ("conv._orig_mod.", "conv.module."):
        content = {name.replace("conv.", inside): value for name, value in state.items()}
        assert torch.equal(loaded(content, tmp_path)["conv.weight"], state["conv.weight"])


def test_what_was_trained_comes_before_its_average_and_other_networks(state, tmp_path, caplog):
    caplog.set_level("INFO")
    average = {name: value + 1 for name, value in state.items()}
    found = loaded({"model_ema": average, "optimizer": {"state": {}}, "model": state}, tmp_path)
    assert torch.equal(found["out.bias"], state["out.bias"]) and "'model_ema'" in caplog.text
    both = {**prefixed(state, "model."), **prefixed(average, "ema_model."), "criterion.weight": torch.ones(3)}
    assert torch.equal(loaded({"state_dict": both}, tmp_path)["out.bias"], state["out.bias"])
    said = refused({**prefixed(state, "left."), **prefixed(average, "right.")}, tmp_path)
    assert "several networks that fit (left., right.)" in said


def test_what_lies_beside_the_weights_is_passed_over(state, tmp_path):
    """The options of a training: argparse, OmegaConf, NumPy's numbers, paths."""
    beside = {
        "args": argparse.Namespace(lr=0.1, out=Path("here"), best=np.float64(0.5)),
        "hyper_parameters": OmegaConf.create({"lr": 0.1, "layers": [1, 2]}),
        "best": np.float32(0.7),
        "history": np.arange(3.0),
    }
    for key, value in beside.items():
        found = loaded({"state_dict": state, key: value}, tmp_path)
        assert torch.equal(found["out.bias"], state["out.bias"]), key


def test_what_does_not_fit_is_named(state, tmp_path):
    assert "does not fit" in refused(
        {"state_dict": prefixed({**state, "more.weight": torch.ones(1)}, "model.")}, tmp_path
    )
    wide = {**state, "out.weight": torch.ones(5, 8), "out.bias": torch.ones(5)}
    assert "size mismatch for out.weight" in refused({"model": prefixed(wide, "module.")}, tmp_path)
    assert "holds no state dict" in refused({"epoch": 3}, tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value, state, tmp_path):
    state["out.weight"][0, 0] = value
    assert "NaN or infinite numbers in 'out.weight'" in refused(state, tmp_path)
    state["conv.weight"][0, 0, 0, 0] = value
    assert "in 'conv.weight' and 1 more" in refused(state, tmp_path)


@pytest.mark.parametrize(("name", "content", "said"), [
    ("a.pt", b"", "is empty"),
    ("a.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
    ("a.pt", b"<!DOCTYPE html><html>", "is a web page"),
    ("a.pt", b"garbage that is no file of weights", "damaged"),
    ("a.safetensors", b"\xff" * 64, "damaged"),
    ("a.pt", None, "damaged"),
    ("a.safetensors", None, "damaged"),
])  # fmt: skip
@pytest.mark.parametrize("share", [0.3, 0.99])
def test_damaged_files_are_said_to_be_damaged(name, content, said, share, state, tmp_path):
    file = tmp_path / name
    if content is None:
        save_file(state, file) if file.suffix == ".safetensors" else torch.save(state, file)
        content = file.read_bytes()[: int(share * file.stat().st_size)]
    file.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        load(network(), str(file))
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


class Evil:
    """Leaves a file where it is unpickled."""

    def __reduce__(self):
        return (open, ("executed", "w"))


def test_code_beside_the_weights_is_refused_and_not_run(state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refused({"state_dict": state, "args": argparse.Namespace(), "hook": Evil()}, tmp_path)
    assert "code, which would be executed" in said and "open" in said
    assert not (tmp_path / "executed").exists()
