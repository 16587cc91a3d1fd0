"""Adapters change hands: what fits goes in bit for bit, what does not is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import tiny
from open_crema import modality
from open_crema.config import Config
from open_crema.errors import ConfigError, WeightsError
from open_crema.model import exchange
from open_crema.model.crema import Crema
from open_crema.model.exchange import (
    add_adapter,
    export_adapter,
    list_adapters,
    remove_adapter,
)
from open_crema.model.files import from_pretrained, save_pretrained
from open_crema.model.tensors import fingerprint

SENSES = ("video", "audio", "flow")
CONFIG, ADAPTER = "config.json", "adapter.safetensors"


@pytest.fixture(scope="module")
def llm():
    return tiny.backbone()


@pytest.fixture(scope="module")
def model(llm):
    return tiny.crema(*SENSES, llm=llm)


@pytest.fixture(scope="module")
def published(model, tmp_path_factory) -> Path:
    """A saved model and its exported adapters, not to be changed."""
    folder = tmp_path_factory.mktemp("published")
    save_pretrained(model, folder / "model", run=Config(model=model.config))
    for sense in SENSES:
        export_adapter(folder / "model", sense, folder / sense)
    return folder


@pytest.fixture
def saved(published, tmp_path) -> Path:
    return Path(shutil.copytree(published / "model", tmp_path / "model"))


@pytest.fixture
def audio(published, tmp_path) -> Path:
    return Path(shutil.copytree(published / "audio", tmp_path / "audio"))


@pytest.fixture
def base(saved) -> Path:
    """The model without its audio."""
    remove_adapter(saved, "audio")
    return saved


def snapshot(folder: Path) -> dict[str, bytes]:
    every = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in every}


def edited(path: Path, change: Callable[[dict], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def batch():
    items = [
        tiny.item(1, video=2, audio=3, flow=2, depth=2),
        tiny.item(2, audio=1, flow=2),
        tiny.item(3, video=2, depth=1),
    ]
    return tiny.batch(*items)


def said(folder: Path, llm) -> torch.Tensor:
    return from_pretrained(folder, backbone=llm)(batch()).logits


def grown(folder: Path, sense: str, llm, *, seed: int = 0) -> Crema:
    """What another team trains: a new sense on a published base, of which nothing moves."""
    model = from_pretrained(folder, backbone=llm)
    torch.manual_seed(seed)
    model.add_sense(sense, tiny.WIDTHS[sense])
    with torch.no_grad():
        for parameter in model.adapter(sense).parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        model.fusion.blocks[sense].normal_()
        model.adapter(sense).fresh.fill_(False)
    return model.eval()


# Taking out and putting back


@pytest.mark.parametrize("sense", SENSES)
def test_remove_then_add_restores_every_byte(saved, published, llm, sense):
    before = snapshot(saved)
    remove_adapter(saved, sense)
    others = [s for s in SENSES if s != sense]
    assert torch.equal(
        said(saved, llm),
        from_pretrained(published / "model", senses=others, backbone=llm)(batch()).logits,
    )
    after = snapshot(saved)
    kept = {n: c for n, c in before.items() if n not in (CONFIG, "run.yaml") and sense not in n}
    assert {n: c for n, c in after.items() if n not in (CONFIG, "run.yaml")} == kept
    assert add_adapter(saved, published / sense) == []
    back = snapshot(saved)
    for name in (CONFIG, "run.yaml"):  # the sense is listed last now
        assert sorted(back.pop(name)) == sorted(before.pop(name))
    assert back == before
    assert torch.equal(said(saved, llm), said(published / "model", llm))


def test_add_then_remove_restores_every_byte(base, published, llm, tmp_path):
    before = snapshot(base)
    new = grown(base, "depth", llm)
    export_adapter(save_pretrained(new, tmp_path / "grown"), "depth", tmp_path / "depth")
    add_adapter(base, tmp_path / "depth")
    assert torch.equal(said(base, llm), new(batch()).logits)
    now = snapshot(base)
    moved = {n for n in before if now[n] != before[n]}
    assert moved == {CONFIG, "run.yaml"}
    assert set(now) - set(before) == {f"adapters/depth/{n}" for n in (CONFIG, ADAPTER)}
    remove_adapter(base, "depth")
    assert snapshot(base) == before
    assert [p.name for p in base.parent.iterdir() if p.name.startswith(".")] == []


def test_a_base_of_one_sense_grows_by_published_files(llm, tmp_path):
    alone = save_pretrained(tiny.crema("video", llm=llm), tmp_path / "alone")
    before = snapshot(alone)
    new = grown(alone, "audio", llm)
    theirs = save_pretrained(new, tmp_path / "theirs")
    assert snapshot(theirs)["adapters/video/config.json"] == before["adapters/video/config.json"]
    export_adapter(theirs, "audio", tmp_path / "audio")
    assert add_adapter(alone, tmp_path / "audio") == []
    assert torch.equal(said(alone, llm), new(batch()).logits)
    assert list_adapters(alone)[1].notes == ()
    remove_adapter(alone, "audio")
    assert snapshot(alone) == before


def test_a_new_model_beside_the_old_one(base, audio, model, llm, tmp_path):
    before = snapshot(base)
    add_adapter(base, audio, out=tmp_path / "new")
    assert snapshot(base) == before
    assert torch.equal(said(tmp_path / "new", llm), model(batch()).logits)
    remove_adapter(tmp_path / "new", "audio", out=tmp_path / "newer")
    assert snapshot(tmp_path / "newer") == before
    with pytest.raises(WeightsError, match="lies inside the model"):
        add_adapter(base, audio, out=base / "new")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("years of work")
    with pytest.raises(WeightsError, match="other things than a model"):
        add_adapter(base, audio, out=tmp_path / "thesis")
    assert snapshot(base) == before


def test_a_live_model_takes_it_as_a_folder_does(base, audio, model, llm, tmp_path):
    live = from_pretrained(base, backbone=llm)
    assert add_adapter(live, audio) == []
    assert torch.equal(live(batch()).logits, model(batch()).logits)
    add_adapter(base, audio)
    again = snapshot(save_pretrained(live, tmp_path / "live"))
    assert {n: c for n, c in snapshot(base).items() if n != "run.yaml"} == again
    with pytest.raises(WeightsError, match="has an adapter for 'audio' already"):
        add_adapter(live, audio)


def test_a_subfolder_of_a_model_is_an_adapter_too(base, published, model, llm):
    add_adapter(base, published / "model" / "adapters" / "audio")
    assert torch.equal(said(base, llm), model(batch()).logits)


def test_replace_puts_another_in_its_place(saved, base, llm, tmp_path):
    other = save_pretrained(grown(base, "audio", llm, seed=5), tmp_path / "other")
    export_adapter(other, "audio", tmp_path / "theirs")
    target = tmp_path / "target"
    add_adapter(base, tmp_path / "theirs", out=target)
    remarks = add_adapter(target, tmp_path / "theirs", replace=True)
    assert remarks == []
    assert torch.equal(said(target, llm), said(other, llm))


def test_in_and_out_of_the_current_folder(saved, audio, model, llm, monkeypatch):
    monkeypatch.chdir(saved)
    remove_adapter(".", "audio")
    monkeypatch.chdir(saved)  # the folder is a new one
    add_adapter(".", audio)
    assert torch.equal(said(saved, llm), model(batch()).logits)


# What does not fit


def other_base(audio: Path, **change: object) -> None:
    edited(audio / CONFIG, lambda d: d["base"].update(change))


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
        lambda f: retensored(f, lambda t: t["queries"].neg_()),
    ),
    "a number that is not finite": (
        r"audio/adapter\.safetensors: queries holds numbers that are not finite",
        lambda f: retensored(f, lambda t: t["queries"].fill_(torch.inf)),
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


def retensored(folder: Path, change: Callable[[dict], object]) -> None:
    tensors = {n: t.clone() for n, t in load_file(folder / ADAPTER).items()}
    change(tensors)
    save_file(tensors, folder / ADAPTER)


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


# Safety


def test_links_are_followed_and_strangers_left_behind(base, audio, model, llm, tmp_path):
    """As the hub's cache has it: links to blobs."""
    (tmp_path / "blob").write_bytes((audio / ADAPTER).read_bytes())
    (audio / ADAPTER).unlink()
    (audio / ADAPTER).symlink_to(tmp_path / "blob")
    (audio / "passwords").symlink_to("/etc/passwd")
    (audio / "run.py").write_text("import os")
    add_adapter(base, audio)
    own = base / "adapters" / "audio"
    assert {p.name for p in own.iterdir()} == {ADAPTER, CONFIG}
    assert not any(p.is_symlink() for p in own.iterdir())
    assert torch.equal(said(base, llm), model(batch()).logits)


@pytest.mark.parametrize("name", ["../model", "adapters/flow", "..", "", "/etc"])
def test_names_that_are_no_sense_touch_nothing(saved, name, tmp_path):
    before = snapshot(tmp_path)
    for use in (
        lambda: remove_adapter(saved, name),
        lambda: export_adapter(saved, name, tmp_path / "out"),
    ):
        with pytest.raises(WeightsError, match="has no adapter for"):
            use()
    assert snapshot(tmp_path) == before


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", range(1, 5))
def test_whoever_is_killed_leaves_the_model_whole(base, audio, monkeypatch, at):
    before, calls = snapshot(base), []

    def dying(real):
        def die(*arguments, **options):
            calls.append(real)
            if len(calls) == at:
                raise Killed
            return real(*arguments, **options)

        return die

    for owner, name in (
        (exchange.shutil, "copyfile"),
        (exchange, "write_json"),
        (exchange.yaml, "safe_dump"),
    ):
        monkeypatch.setattr(owner, name, dying(getattr(owner, name)))
    monkeypatch.setattr(exchange.shutil, "copytree", _copytree)
    with pytest.raises(Killed):
        add_adapter(base, audio)
    assert snapshot(base) == before
    assert [p.name for p in base.parent.iterdir() if p.name.startswith(".")] == []


def _copytree(source: Path, target: Path, **_: object) -> None:
    """Without copyfile, which is counted above."""
    for name, content in snapshot(source).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)


# Removing, exporting, listing


def test_the_last_sense_stays(llm, tmp_path):
    folder = save_pretrained(tiny.crema("audio", llm=llm), tmp_path / "m")
    with pytest.raises(WeightsError, match="'audio' is its only sense"):
        remove_adapter(folder, "audio")


def test_a_sense_that_is_not_there(saved):
    with pytest.raises(WeightsError, match=r"no adapter for 'adio'; did you mean 'audio'\? it has"):
        remove_adapter(saved, "adio")


def test_without_the_primary_sense_it_says_who_leads(saved):
    assert remove_adapter(saved, "video") == [
        "audio was trained beside the primary sense 'video'; 'audio' leads now",
        "flow was trained beside the primary sense 'video'; 'audio' leads now",
    ]


def test_a_damaged_adapter_can_be_removed(saved, llm, published):
    (saved / "adapters" / "audio" / CONFIG).write_text("{")
    (saved / "adapters" / "audio" / ADAPTER).unlink()
    remove_adapter(saved, "audio")
    add_adapter(saved, published / "audio")
    assert torch.equal(said(saved, llm), said(published / "model", llm))


def test_an_export_stands_alone_and_replaces_only_its_like(saved, tmp_path, published):
    out = tmp_path / "a" / "b"
    assert export_adapter(saved, "audio", out) == out
    assert snapshot(out) == snapshot(published / "audio")
    card = (out / "README.md").read_text()
    for part in ("audio", "tiny-llama-0", "crema adapter add MODEL", "video (`"):
        assert part in card
    export_adapter(saved, "audio", out)
    with pytest.raises(WeightsError, match="other things than an adapter for 'flow'"):
        export_adapter(saved, "flow", out)
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(WeightsError, match="other things"):
        export_adapter(saved, "audio", out)
    with pytest.raises(WeightsError, match="other things"):
        export_adapter(saved, "audio", saved)
    with pytest.raises(WeightsError, match="other things"):
        export_adapter(saved, "audio", out / "thesis.tex")
    assert (out / "thesis.tex").exists()


def test_the_list_says_how_large_and_in_what_company(saved, model, llm, tmp_path):
    found = list_adapters(saved)
    assert [f.info.sense for f in found] == ["video", "audio", "flow"]
    for one in found:
        sense = one.info.sense
        path = saved / "adapters" / sense / ADAPTER
        expected = sum(p.numel() for p in model.adapter(sense).parameters())
        if sense != "video":
            expected += model.fusion.blocks[sense].numel()
        assert (one.parameters, one.bytes) == (expected, path.stat().st_size)
        assert one.info.fingerprint == fingerprint(load_file(path))
        assert one.notes == ()
    live = from_pretrained(saved, backbone=llm)
    live.add_sense("depth", tiny.WIDTHS["depth"])
    fresh = list_adapters(save_pretrained(live, tmp_path / "fresh"))
    assert fresh[3].info.fresh
    assert fresh[3].notes == ("its adapter has not been trained yet",)
    assert [f.notes for f in fresh[:3]] == [(), (), ()]


def test_a_third_partys_sense_names_its_package(monkeypatch):
    kind = modality.Modality("imu", "Motion", "crema_imu.encoder:Imu", "crema_imu:read")
    monkeypatch.setattr(modality, "_distributions", lambda: {"crema_imu": ["pytest"]})
    assert modality.package_of(kind) == f"pytest=={pytest.__version__}"
    assert modality.package_of(modality.get("audio")) is None
    with pytest.raises(ConfigError):
        modality.get("imu")


# Any sequence of them


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "export", "list"]), st.sampled_from(SENSES)),
    min_size=3,
    max_size=6,
)


@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_any_sequence_keeps_the_model_consistent(published, llm, tmp_path, steps):
    folder, out = tmp_path / "model", tmp_path / "out"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(published / "model", folder)
    whole, there = snapshot(folder), set(SENSES)
    for what, sense in steps:
        led = sense == "video" or "video" in there  # the others were trained beside it
        fits = {"add": sense not in there and led, "remove": there > {sense}}
        possible = fits.get(what, sense in there)
        before = snapshot(folder)
        try:
            if what == "add":
                add_adapter(folder, published / sense)
                there |= {sense}
            elif what == "remove":
                remove_adapter(folder, sense)
                there -= {sense}
            elif what == "export":
                shutil.rmtree(out, ignore_errors=True)
                assert snapshot(export_adapter(folder, sense, out)) == snapshot(published / sense)
            else:
                assert [f.info.sense for f in list_adapters(folder)] == sorted(
                    there, key=SENSES.index
                )
        except WeightsError:
            assert not possible
            assert snapshot(folder) == before
        else:
            assert possible or what == "list"
        now = snapshot(folder)
        names = {n for n in whole if not n.startswith("adapters/") or n.split("/")[1] in there}
        assert set(now) == names
        assert all(now[n] == whole[n] for n in names if n not in (CONFIG, "run.yaml"))
    alone = from_pretrained(published / "model", senses=sorted(there), backbone=llm)
    assert torch.equal(said(folder, llm), alone(batch()).logits)
