"""The base that ships: it is whole, small enough, and made for the LLM that ships with it."""

import json

import pytest
import torch

from open_crema import backbones, experiment, modality
from open_crema.model.files import from_pretrained, run_of
from open_crema.senseqa.clips import SENSES

BASE = experiment.shipped_base()
UPDATE = BASE.parent / backbones.CAPTIONS
MEGABYTE = 10**6


def size(folder):
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def test_it_is_small_enough_for_a_wheel():
    assert size(BASE) < 16 * MEGABYTE
    assert size(UPDATE) < 10 * MEGABYTE


def test_every_file_of_it_is_in_the_package():
    """By the patterns of pyproject.toml."""
    import tomllib

    project = tomllib.loads((BASE.parents[3] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["open_crema"]
    for file in (f for f in BASE.parent.rglob("*") if f.is_file()):
        name = file.relative_to(BASE.parents[1])
        assert any(name.match(p) and len(name.parts) == p.count("/") + 1 for p in patterns), name


def test_its_senses():
    run = run_of(BASE)
    assert run.model.llm == backbones.CAPTIONS
    assert run.model.senses == tuple(modality.canonical(run.model.senses))
    assert run.model.senses[0] == "video"
    assert set(run.model.senses) <= set(SENSES)


def test_it_names_no_path_of_a_machine():
    run = run_of(BASE)
    for path in (run.out, run.data.train, run.data.media_root, run.data.store, run.train.init):
        assert path is None or not path.startswith(("/", "~")), path


def test_it_loads_in_half_precision_and_whole():
    model = from_pretrained(BASE)
    assert not model.untrained
    own = [p for n, p in model.named_parameters() if not n.startswith("backbone.")]
    for parameter in own:
        assert parameter.equal(parameter.bfloat16().float())
        assert bool(parameter.isfinite().all())


def test_its_llm_is_a_variant_with_a_fingerprint_of_its_own():
    stock, tuned = (backbones.load(name) for name in (backbones.STOCK, backbones.CAPTIONS))
    assert stock.fingerprint != tuned.fingerprint
    said = json.loads((BASE / "config.json").read_text())["base"]["llm"]
    assert said == tuned.fingerprint
    # Its prompts are short, and an answer's first token is the one that a caption has.
    assert (len(tuned.before), tuned.after) == (1, tuned.encode("\n"))
    assert tuned.target("red")[0] == tuned.encode(" red")[0]
    # Alignment is to rows of the embedding matrix, which the tuning leaves as they are.
    rows = [b.llm.get_input_embeddings().weight for b in (stock, tuned)]
    assert torch.equal(*rows)


@pytest.mark.parametrize("kept", [["video"], ["video", "audio"]])
def test_it_can_be_had_with_fewer_senses(kept):
    assert from_pretrained(BASE, senses=kept).senses == kept
