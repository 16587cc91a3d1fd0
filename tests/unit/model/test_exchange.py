"""Adapters change hands: what fits goes in and out bit for bit, and nothing else moves."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from copies import ADAPTER, CONFIG, SENSES, batch, grown, said, snapshot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import tiny
from open_crema import modality
from open_crema.errors import ConfigError, WeightsError
from open_crema.model import exchange
from open_crema.model.exchange import (
    add_adapter,
    export_adapter,
    list_adapters,
    remove_adapter,
)
from open_crema.model.files import from_pretrained, save_pretrained
from open_crema.model.tensors import fingerprint

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


def test_an_adapter_brings_its_input_projection(base, llm, tmp_path):
    before = snapshot(base)
    new = grown(base, "depth", llm, projected=True)
    export_adapter(save_pretrained(new, tmp_path / "grown"), "depth", tmp_path / "depth")
    plain = grown(base, "depth", llm, seed=1)
    export_adapter(save_pretrained(plain, tmp_path / "plain"), "depth", tmp_path / "without")
    add_adapter(base, tmp_path / "depth")
    assert torch.equal(said(base, llm), new(batch()).logits)
    live = from_pretrained(tmp_path / "grown", senses=["video"], backbone=llm)
    add_adapter(live, tmp_path / "without")
    assert live.config.input_projection == ()
    add_adapter(base, tmp_path / "without", replace=True)
    assert torch.equal(said(base, llm), plain(batch()).logits)
    add_adapter(base, tmp_path / "depth", replace=True)
    assert torch.equal(said(base, llm), new(batch()).logits)
    remove_adapter(base, "depth")
    assert snapshot(base) == before


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
