"""The plain implementation against the official golden files, and against those it writes."""

import re
from pathlib import Path

import pytest
import torch

from reference.cases import CASES, TRACES
from reference.generate import generate
from reference.golden import Golden, golden_files, read_golden
from reference.plain import PlainCrema
from reference.trace import Loop, Record, Schedule

OFFICIAL = Path(__file__).resolve().parents[2].parent / "shared" / "golden"
FORWARD_FILES, TRACE_FILES = golden_files(OFFICIAL)
needs_official = pytest.mark.skipif(
    not OFFICIAL.is_dir(), reason="the official golden files are not beside this repository"
)

EXACT = ("enc_atts", "proj_atts", "llm/attention_mask", "llm/labels", "llm/decoder_attention_mask")
TOLERANCE = {"llm/logits": 5e-6, "gen/mcqa_scores": 5e-6}  # anything else: 1e-5

GENERATED = [
    "rgb__concat__end_first",
    "rgb__concat__end_third",
    "rgb_audio__concat",
    "pc__concat",
    "rgb_audio-skip_pc-skip__espresso",
    "trace_seq_sgd",
    "trace_es_adamw",
    "trace_es_all_sgd",
    "trace_joint_es_sgd",
]


def model_of(golden: Golden, weights: str) -> PlainCrema:
    record = golden.record
    return PlainCrema(golden.group(weights), record["modalities"], record["task"], record["size"])


def assert_forward_equal(golden: Golden) -> None:
    """Every quantity of a forward file, at the tolerances that an exact implementation meets."""
    record, expected = golden.record, golden.tensors
    model = model_of(golden, "sd")
    found = model.forward(golden.inputs(), golden.group("tok"))
    loss = found.pop("loss")
    assert loss.item() == pytest.approx(record["loss"], abs=1e-5)
    grads = model.gradients(loss)
    ids, scores, predicted = model.answer_choice(
        found["llm/inputs_embeds"], found["llm/attention_mask"]
    )
    found["gen/mcqa_ids"], found["gen/mcqa_scores"] = ids, scores
    found["gen/oeqa_ids"] = model.answer_open(
        found["llm/inputs_embeds"], found["llm/attention_mask"]
    )
    computed = ("enc", "qf", "proj", "enc_atts", "proj_atts", "llm", "gen")
    assert set(found) == {k for k in expected if k.split("/")[0] in computed}
    for key, value in found.items():
        assert value.shape == expected[key].shape, key
        if key.startswith(EXACT) or key.endswith("_ids"):
            assert torch.equal(value, expected[key]), key
        else:
            error = (value - expected[key]).abs().max().item()
            assert error <= TOLERANCE.get(key, 1e-5), key
    assert predicted == record["mcqa_pred"]
    assert set(grads) == set(golden.group("grad"))
    for name, grad in golden.group("grad").items():
        assert ((grads[name] - grad).norm() / grad.norm()).item() <= 1e-4, name
    assert set(model.trainable) == set(record["trainable"])
    assert set(model.trainable) - set(grads) == set(record["trainable_without_grad"])


def run_trace(golden: Golden) -> Record:
    record = golden.record
    schedule = Schedule(
        epochs=record["epochs"],
        optimizer=record["optimizer"],
        lr=record["lr"],
        weight_decay=record["weight_decay"],
        betas=tuple(record["betas"]),
        eps=record["eps"],
        es_temperature=record["es_temperature"],
        lazy_epoch=record["lazy_epoch"],
    )
    batches = [golden.inputs(i) for i in range(record["iters"])]
    return Loop(model_of(golden, "init"), golden.group("tok"), schedule).run(batches)


def assert_trace_equal(golden: Golden) -> None:
    """Steps, norms, exits, meters and weights of a training file."""
    record, run = golden.record, run_trace(golden)
    close = pytest.approx
    for found, expected in zip(run.steps, record["steps"], strict=True):
        assert found == {
            **expected,
            "loss": close(expected["loss"], abs=1e-4),
            **{k: close(v, rel=1e-3) for k, v in expected.items() if k == "gradsel_norm"},
        }
    for found, expected in zip(run.epoch_records, record["epoch_records"], strict=True):
        assert found == {
            **expected,
            "history": {k: close(v, rel=1e-3) for k, v in expected["history"].items()},
            "meters": {k: close(v, rel=1e-3) for k, v in expected["meters"].items()},
        }
    tolerance = 1e-3 if record["optimizer"] == "adamw" else 1e-6
    for epoch in (0, record["epochs"] - 1):
        after = golden.group(f"after_epoch{epoch}")
        assert set(after) == set(record["trainables"]) == set(run.after_epoch[epoch])
        for name, value in after.items():
            assert (run.after_epoch[epoch][name] - value).abs().max() <= tolerance, name


@needs_official
@pytest.mark.parametrize("path", FORWARD_FILES, ids=lambda path: path.stem)
def test_matches_official_forward(path: Path) -> None:
    assert_forward_equal(read_golden(path))


@needs_official
@pytest.mark.parametrize("path", TRACE_FILES, ids=lambda path: path.stem)
def test_matches_official_training(path: Path) -> None:
    assert_trace_equal(read_golden(path))


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Golden]:
    folder = tmp_path_factory.mktemp("golden")
    return {path.stem: read_golden(path) for path in generate(folder, only=GENERATED)}


@needs_official
def test_generated_files_have_the_official_fields(generated: dict[str, Golden]) -> None:
    assert FORWARD_FILES
    assert TRACE_FILES
    added = {"torch", "transformers"}
    for path in (*FORWARD_FILES, *TRACE_FILES):
        official = read_golden(path)
        ours = generated[
            "trace_es_adamw" if path in TRACE_FILES else "rgb_audio-skip_pc-skip__espresso"
        ]
        # There is no tokenizer here that could decode an answer.
        assert set(official.record) - {"oeqa_strings"} - added == set(ours.record) - added
        for key in ("steps", "epoch_records"):
            if key in official.record:
                assert set(official.record[key][0]) <= set(ours.record[key][0])
        groups = {re.sub(r"\d+/.*|/.*", "", key) for key in official.tensors}
        assert groups == {re.sub(r"\d+/.*|/.*", "", key) for key in ours.tensors}


@needs_official
def test_generated_weights_have_the_official_names(generated: dict[str, Golden]) -> None:
    official = read_golden(OFFICIAL / "rgb_audio__concat.json").group("sd")
    encoders = ("visual_encoder.", "audio_encoder.")
    ours = generated["rgb_audio__concat"].group("sd")
    assert set(ours) == {name for name in official if not name.startswith(encoders)}
    assert all(official[name].ndim == value.ndim for name, value in ours.items())


@pytest.mark.parametrize("name", GENERATED)
def test_generated_files_can_be_run_again(generated: dict[str, Golden], name: str) -> None:
    if name.startswith("trace_"):
        assert_trace_equal(generated[name])
    else:
        assert_forward_equal(generated[name])


def test_generation_depends_on_name_and_seed_only(tmp_path: Path) -> None:
    name = "rgb__concat__end_first"
    together = generate(tmp_path / "a", only=["rgb-skip__concat", name])
    alone = generate(tmp_path / "b", only=[name])
    other = generate(tmp_path / "c", seed=1, only=[name])
    assert together[1].read_bytes() == alone[0].read_bytes()
    assert alone[0].read_bytes() != other[0].read_bytes()


def test_generate_refuses_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rgb__nothing"):
        generate(tmp_path, only=["rgb__nothing"])


def test_names_of_cases_are_unique() -> None:
    names = [c.name for c in CASES] + [f"trace_{t.name}" for t in TRACES]
    assert len(set(names)) == len(names)


def test_answers_that_end_early(generated: dict[str, Golden]) -> None:
    first = generated["rgb__concat__end_first"]
    assert first.tensors["gen/mcqa_ids"].tolist() == [[0, 1]]
    assert len(first.tensors["gen/mcqa_scores"]) == 1  # so the first step decides the option
    third = generated["rgb__concat__end_third"].tensors
    assert third["gen/mcqa_ids"][0, 3] == 1
    assert third["gen/oeqa_ids"].shape[1] < 11


def test_every_gradient_is_felt(generated: dict[str, Golden]) -> None:
    for golden in generated.values():
        assert all(g.norm() > 1e-5 for g in golden.group("grad").values())


def test_exited_modalities_stay_and_the_others_go_on(generated: dict[str, Golden]) -> None:
    golden = generated["trace_es_adamw"]
    run, last = run_trace(golden), golden.record["epoch_records"][-1]
    exits = {m: e for m, e in last["post_es_ticker"].items() if e >= 0}
    assert 0 < len(exits) < len(golden.record["modalities"])
    for name, epoch in exits.items():
        key = f"query_tokens_{name}"
        assert torch.equal(run.after_epoch[epoch][key], run.after_epoch[-1][key])
        assert not any(s["modality"] == name for s in run.steps if s["epoch"] > epoch)
    going = next(m for m in golden.record["modalities"] if m not in exits)
    key = f"query_tokens_{going}"
    assert not torch.equal(run.after_epoch[-2][key], run.after_epoch[-1][key])


def test_when_all_exit_nothing_is_trained(generated: dict[str, Golden]) -> None:
    run = run_trace(generated["trace_es_all_sgd"])
    assert {s["epoch"] for s in run.steps} == set(range(6))
    for name, value in run.after_epoch[5].items():
        assert torch.equal(value, run.after_epoch[6][name])


def test_joint_training_flags_exits_and_ignores_them(generated: dict[str, Golden]) -> None:
    record = generated["trace_joint_es_sgd"].record
    assert any(record["epoch_records"][5]["es_ticker"].values())
    assert [s["epoch"] for s in record["steps"]] == [e for e in range(7) for _ in range(2)]
    norms = [s["gradsel_norm"][0] for s in record["steps"] if s["epoch"] == 0]
    first = record["modalities"][0]
    assert record["epoch_records"][0]["history"][first] == pytest.approx([sum(norms) / 2])


def test_files_are_small(generated: dict[str, Golden]) -> None:
    for golden in generated.values():
        assert sum(tensor.nbytes for tensor in golden.tensors.values()) < 1_000_000
