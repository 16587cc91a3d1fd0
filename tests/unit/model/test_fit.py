"""Whether an adapter fits: what does not is refused by name, what differs is noted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from copies import ADAPTER, CONFIG, edited, grown, retensored, said, snapshot
from safetensors.torch import load_file

import tiny
from open_crema.errors import ConfigError, WeightsError
from open_crema.model.crema import Crema
from open_crema.model.exchange import (
    add_adapter,
    export_adapter,
    list_adapters,
    remove_adapter,
)
from open_crema.model.files import save_pretrained


def other_base(audio: Path, **change: object) -> None:
    edited(audio / CONFIG, lambda d: d["base"].update(change))


def test_a_models_own_adapter_is_projected_as_its_configuration_says(saved, llm):
    edited(saved / CONFIG, lambda d: d["model"].update(input_projection=["video"]))
    with pytest.raises(WeightsError, match=r"it has no input projection, and .* names 'video'"):
        said(saved, llm)


REFUSED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a later format": (
        r"audio/config\.json: not an adapter of format 2 \(format: 3\)",
        lambda f: edited(f / CONFIG, lambda d: d.update(format=3)),
    ),
    "a sense that is nearly known": (
        "unknown sense 'adio': did you mean 'audio'.*install the package",
        lambda f: edited(f / CONFIG, lambda d: d.update(sense="adio")),
    ),
    "a sense of somebody's package": (
        "unknown sense 'imu'.*its package is crema-imu==1.2: pip install crema-imu$",
        lambda f: edited(
            f / CONFIG,
            lambda d: (d.update(sense="imu"), d["modality"].update(package="crema-imu==1.2")),
        ),
    ),
    "a package that is none": (
        "unknown sense 'imu'.*; install the package that registers it$",
        lambda f: edited(
            f / CONFIG,
            lambda d: (d.update(sense="imu"), d["modality"].update(package="a\x1b[2J\nb")),
        ),
    ),
    "a sense out of the folder": (
        r"unknown sense '\.\./\.\./flow'",
        lambda f: edited(f / CONFIG, lambda d: d.update(sense="../../flow")),
    ),
    "a sense that is there": (
        "has an adapter for 'flow' already; `crema adapter remove` it first, or give --replace",
        lambda f: edited(f / CONFIG, lambda d: d.update(sense="flow")),
    ),
    "another LLM": (
        "another base: the LLM gpt, the model's is tiny-llama-0",
        lambda f: other_base(f, llm="gpt"),
    ),
    "another Q-Former": (
        "another base: the Q-Former 0123, the model's is ",
        lambda f: other_base(f, qformer="0123"),
    ),
    "another fusion": (
        "model.fusion concat, the model has self-gated, append",
        lambda f: edited(f / CONFIG, lambda d: d["fusion"].update(kind="concat")),
    ),
    "another place of the fused tokens": (
        "model.fusion self-gated, add, the model has self-gated, append",
        lambda f: edited(f / CONFIG, lambda d: d["fusion"].update(placement="add")),
    ),
    "another fusion bias": (
        "another fusion bias.*scope all.*--force",
        lambda f: other_base(f, fusion="0123"),
    ),
    "another shape": (
        r"shape is not the model's: queries 5, not 3; rank 0, not 2",
        lambda f: edited(f / CONFIG, lambda d: d["shape"].update(queries=5, rank=0)),
    ),
    "another label": (
        "sense 'audio' was another one: label 'Noise', not 'Audio'",
        lambda f: edited(f / CONFIG, lambda d: d["modality"].update(label="Noise")),
    ),
    "another encoder": (
        r"encoder beats-iter3 \(b\), the model's for 'audio' is yamnet .*model\.encoders",
        lambda f: edited(
            f / CONFIG, lambda d: d["encoder"].update(name="beats-iter3", fingerprint="b")
        ),
    ),
    "another primary sense": (
        r"primary sense 'video' \(0123\), which the model has another version of.*--force",
        lambda f: edited(f / CONFIG, lambda d: d["trained_with"].update(video="0123")),
    ),
    "a primary sense that is not here": (
        r"primary sense 'depth' \(0123\), which the model lacks.*--force",
        lambda f: edited(
            f / CONFIG,
            lambda d: (d["trained_with"].update(depth="0123"), d.update(primary="depth")),
        ),
    ),
    "no fusion block": (
        "has no fusion block: 'audio' was the primary sense where it was trained, and 'video' is",
        lambda f: edited(f / CONFIG, lambda d: d["fusion"].update(block=False)),
    ),
    "a flipped bit": (
        r"audio/adapter\.safetensors: its tensors .* are not the ones",
        lambda f: retensored(f / ADAPTER, lambda t: t["queries"].neg_()),
    ),
    "a number that is not finite": (
        r"audio/adapter\.safetensors: queries holds numbers that are not finite",
        lambda f: retensored(f / ADAPTER, lambda t: t["queries"].fill_(torch.inf)),
    ),
    "no tensors": (
        r"audio/adapter\.safetensors: no such file",
        lambda f: (f / ADAPTER).unlink(),
    ),
    "half a file": (
        r"audio/adapter\.safetensors: damaged or not safetensors",
        lambda f: (f / ADAPTER).write_bytes((f / ADAPTER).read_bytes()[:-40]),
    ),
    "a link to another file": (
        r"audio/adapter\.safetensors: damaged or not safetensors",
        lambda f: ((f / ADAPTER).unlink(), (f / ADAPTER).symlink_to(Path(__file__))),
    ),
    "a size that no disk has": (
        r"audio/adapter\.safetensors: damaged or not safetensors",
        lambda f: (f / ADAPTER).write_bytes(
            len(header).to_bytes(8, "little") + header
            if (
                header := b'{"queries":{"dtype":"F32","shape":[1099511627776],'
                b'"data_offsets":[0,4398046511104]}}'
            )
            else b""
        ),
    ),
    "nothing": ("audio: is a model, not an adapter|no such file", lambda f: (f / CONFIG).unlink()),
}


@pytest.mark.parametrize("kind", [*REFUSED])
def test_what_does_not_fit_is_refused_and_nothing_moves(base, audio, kind):
    why, harm = REFUSED[kind]
    harm(audio)
    before = snapshot(base)
    with pytest.raises(WeightsError, match=why) as error:
        add_adapter(base, audio)
    assert "\n" not in str(error.value)
    assert str(audio) in str(error.value)
    assert snapshot(base) == before


def test_the_first_of_many_reasons_is_the_one_that_matters_most(base, audio):
    order = [k for k in REFUSED if k not in ("a sense that is there",)]
    order = order[order.index("another LLM") : order.index("a primary sense that is not here")]
    for kind in reversed(order):
        REFUSED[kind][1](audio)
        if kind == "another fusion":  # the next one would undo it
            edited(audio / CONFIG, lambda d: d["fusion"].update(placement="append"))
        with pytest.raises(WeightsError, match=REFUSED[kind][0]):
            add_adapter(base, audio)
        if kind == "another place of the fused tokens":
            edited(audio / CONFIG, lambda d: d["fusion"].update(placement="append"))


def test_a_model_is_not_an_adapter(base, published):
    with pytest.raises(WeightsError, match="is a model, not an adapter; `crema adapter export`"):
        add_adapter(base, published / "model")


def test_force_notes_what_it_passes_over(base, audio, llm):
    other_base(audio, fusion="0123")
    edited(audio / CONFIG, lambda d: d["trained_with"].update(video="4567"))
    remarks = add_adapter(base, audio, force=True)
    assert remarks == [
        "was trained with another fusion bias",
        "was trained beside another video adapter",
    ]
    assert list(list_adapters(base)[1].notes) == remarks
    assert torch.isfinite(said(base, llm)).all()


@pytest.mark.parametrize("kind", ["another LLM", "another shape", "no fusion block"])
def test_force_does_not_make_everything_fit(base, audio, kind):
    REFUSED[kind][1](audio)
    with pytest.raises(WeightsError):
        add_adapter(base, audio, force=True)


def test_other_company_than_in_training_is_noted(published, base, audio, llm, tmp_path):
    remove_adapter(base, "flow")
    new = save_pretrained(grown(base, "depth", llm), tmp_path / "grown")
    export_adapter(new, "depth", tmp_path / "depth")
    remarks = add_adapter(new, audio)
    assert remarks == [
        "was trained beside flow, which is not here",
        "was trained without depth",
    ]
    edited(audio / CONFIG, lambda d: d["trained_with"].update(flow="0123"))
    remarks = add_adapter(new, published / "flow")
    assert remarks == ["was trained without depth"]


def test_a_new_primary_sense_would_leave_the_old_one_without_a_block(llm, tmp_path, published):
    alone = tiny.crema("audio", llm=llm)
    with torch.no_grad():
        alone.qformer.load_state_dict(load_file(published / "model" / "qformer.safetensors"))
    folder = save_pretrained(alone, tmp_path / "alone")
    with pytest.raises(WeightsError, match="'video' would become the primary sense, and 'audio'"):
        add_adapter(folder, published / "video")


def test_the_encoder_of_the_model_decides(llm, tmp_path):
    """With real encoders' names: another resolution is another encoder."""
    model = Crema(tiny.config("video", "audio"), llm)
    folder = save_pretrained(model, tmp_path / "m")
    export_adapter(folder, "audio", tmp_path / "audio")
    remove_adapter(folder, "audio")
    edited(folder / CONFIG, lambda d: d["model"]["encoders"].update(audio_window=2.5))
    with pytest.raises(WeightsError, match=r"encoder yamnet .*/5s/.*'audio' is yamnet .*/2\.5s/"):
        add_adapter(folder, tmp_path / "audio")


def test_a_model_whose_encoder_cannot_be_built_is_saved_all_the_same(llm, tmp_path, monkeypatch):
    def broken(*_: object) -> None:
        raise ConfigError("no sensor")

    monkeypatch.setattr("open_crema.encoders.registry.build", broken)
    folder = save_pretrained(Crema(tiny.config("audio"), llm), tmp_path / "m")
    assert list_adapters(folder)[0].info.encoder.name is None
