"""Our models and tasks in lmms-eval: on a stand-in for its interface and, where it is installed,
on the package itself."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import QUESTION, write_lines
from PIL import Image

import lmms_stand_in
import media_factory
from open_crema import harness
from open_crema.errors import ConfigError, MediaError, WeightsError
from open_crema.evaluation.metrics import normalise

INSTALLED = importlib.util.find_spec("lmms_eval") is not None
CLASS = "open_crema.harness.lmms"
OPTIONS = ["a red cup", "rain", "the blue dog runs", "nothing"]


def fresh_class():
    sys.modules.pop(CLASS, None)
    return importlib.import_module(CLASS).OpenCrema


@pytest.fixture
def stand_in(monkeypatch, stand_ins):
    """The class, as made where the stand-in is what ``lmms_eval`` is."""
    kept = {name for name in sys.modules if name.split(".")[0] == "lmms_eval"}
    for name in kept:
        monkeypatch.delitem(sys.modules, name)
    for name, module in lmms_stand_in.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    yield fresh_class()
    sys.modules.pop(CLASS)


@pytest.fixture(params=["stand-in", "lmms-eval"])
def run(request, tmp_path, monkeypatch):
    """``run(folder, model_args)``: scores and what was given, of all tasks of a folder."""
    if request.param == "stand-in":
        made = request.getfixturevalue("stand_in")

        def stand_in(folder, arguments):
            model = made.create_from_arg_string(arguments, {"batch_size": "3"})
            return lmms_stand_in.evaluate(model, folder, harness.NAME)

        return stand_in
    if not INSTALLED:
        pytest.skip("lmms-eval is not installed: pip install 'open-crema[lmms-eval]'")
    request.getfixturevalue("stand_ins")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path / "datasets"))
    return real


def real(folder, arguments):
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False, model_name=harness.NAME)
    found = simple_evaluate(
        model=harness.NAME,
        model_args=arguments,
        tasks=list(manager.all_subtasks),
        task_manager=manager,
        batch_size="3",
        bootstrap_iters=0,
        process_docs_parallel=1,
    )
    scores = {
        name: {key.removesuffix(",none"): x for key, x in own.items() if key.endswith(",none")}
        for name, own in found["results"].items()
    }
    given = {
        name: {s["doc"]["id"]: s["filtered_resps"] for s in own}
        for name, own in found["samples"].items()
    }
    return scores, given


@pytest.fixture
def asked(place, model, crema):
    """Questions of both kinds, a part of which the model answers rightly: ``crema eval`` says what
    it answers. Returns its predictions by their id."""
    lines = []
    for i, video in enumerate(["clip.mp4", "sound.wav", "clip.mp4", "other.mp4"]):
        media = {"media": {"audio": video}} if video == "sound.wav" else {"video": video}
        line = {**QUESTION, "question": f"What is number {i}?", "type": "few"}
        del line["video"]
        lines.append({**line, **media, "id": f"open{i}"})
        choice = {"options": OPTIONS, "answer": OPTIONS[i], "question": f"Which is it of {i}?"}
        lines.append({**line, **media, **choice, "id": f"choice{i}", "type": "many"})
    media_factory.write_video(place / "other.mp4", picture=media_factory.grey_level)
    found = predictions(crema, place, lines)
    for line in lines[:4]:
        line["answer"] = found[line["id"]]["prediction"]
    return predictions(crema, place, lines)


def predictions(crema, place, lines, *more):
    write_lines(place / "asked.jsonl", *lines)
    done = crema("eval", place / "run.yaml", "--data", place / "asked.jsonl", *more)
    assert done.code == 0, done.err
    file = place / "out" / "results" / "predictions.jsonl"
    return {row["id"]: row for row in map(json.loads, file.read_text().splitlines())}


def export(crema, place):
    folder = place / "exported"
    file = place / "asked.jsonl"
    made = crema("export", "lmms-eval", folder, "--task", "jsonl", "--data", file, "--name", "own")
    assert made.code == 0, made.err
    return folder


def shares(prediction):
    return [option["probability"] for option in prediction["options"]]


def shares_of(pairs):
    """Of the losses that the harness handed on: the stand-in as pairs, a log as lists."""
    likely = np.exp([-loss for loss, _ in pairs])
    return likely / likely.sum()


def rate(rows, key, kind):
    own = [row[key] for row in rows.values() if row["id"].startswith(kind)]
    return sum(own) / len(own)


def test_the_harness_gives_what_crema_eval_gives(run, asked, crema, place, model):
    scores, given = run(export(crema, place), f"pretrained={model}")
    for name, (said,) in given["own_open"].items():
        assert normalise(said) == normalise(asked[name]["prediction"])
    for name, pairs in given["own_options"].items():
        np.testing.assert_allclose(shares_of(pairs), shares(asked[name]), atol=1e-5)
    assert 0 < rate(asked, "correct", "open") < 1
    assert scores["own_open"]["exact_match"] == rate(asked, "correct", "open")
    assert scores["own_open"]["exact_match_few"] == rate(asked, "correct", "open")
    assert scores["own_open"]["lenient"] == rate(asked, "lenient", "open")
    assert scores["own_options"]["acc"] == rate(asked, "correct", "choice")
    assert scores["own_options_generated"].keys() >= {"acc", "acc_many", "lenient"}


def test_senses_are_chosen_as_in_crema_eval(run, asked, crema, place, model):
    lines = [json.loads(line) for line in (place / "asked.jsonl").read_text().splitlines()]
    heard = predictions(crema, place, lines, "--senses", "audio")
    assert any(shares(heard[i]) != shares(asked[i]) for i in asked)
    _, given = run(export(crema, place), f"pretrained={model},senses=audio")
    for name, pairs in given["own_options"].items():
        np.testing.assert_allclose(shares_of(pairs), shares(heard[name]), atol=1e-5)


@pytest.mark.skipif(not INSTALLED, reason="lmms-eval is not installed")
def test_a_task_of_the_harness_own_kind_is_scored_by_it(
    stand_ins, place, model, tmp_path, monkeypatch
):
    """No process_results: the harness itself takes the option of the least loss."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path / "datasets"))
    folder = place / "foreign"
    folder.mkdir()
    clip = str(place / "clip.mp4")
    lines = [{"id": str(gold), "gold": gold, "video": clip} for gold in range(len(OPTIONS))]
    write_lines(folder / "data.jsonl", *lines)
    visual = "def visual(doc):\n    return [doc['video']]\n"
    (folder / "utils.py").write_text(visual)
    (folder / "foreign.yaml").write_text(
        "task: foreign\ndataset_path: json\ndataset_kwargs: {data_files: {test: data.jsonl}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_visual: !function utils.visual\n"
        f"doc_to_text: What is it?\ndoc_to_target: gold\ndoc_to_choice: {json.dumps(OPTIONS)}\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    scores, given = real(folder, f"pretrained={model}")
    assert scores["foreign"]["acc"] == 1 / len(OPTIONS)  # each option is right once
    first = [loss for loss, _ in given["foreign"]["0"]]
    assert len(set(first)) == len(OPTIONS)
    assert first == [loss for loss, _ in given["foreign"]["3"]]


@pytest.mark.skipif(not INSTALLED, reason="lmms-eval is not installed")
def test_the_package_finds_the_model_by_its_entry_point():
    from lmms_eval.api.model import lmms
    from lmms_eval.models import get_model

    points = importlib.metadata.entry_points(group="lmms_eval.models")
    if harness.NAME not in points.names:
        pytest.skip("open-crema was installed before it had this entry point: pip install -e .")
    assert issubclass(get_model(harness.NAME), lmms)


def requests(model, text, visuals, *kwargs):
    """Requests to generate; each shows the visuals."""
    model.task_dict["t"] = {"test": [{"visuals": visuals}]}
    return [
        lmms_stand_in.Instance(
            "generate_until", (text, own, lambda doc: doc["visuals"], 0, "t", "test")
        )
        for own in kwargs
    ]


@pytest.fixture
def loaded(stand_in, model):
    return stand_in(str(model), batch_size=2)


def test_a_manifest_names_the_class(stand_in):
    manifest = harness.manifest()
    module, name = manifest.simple_class_path.rsplit(".", 1)
    assert (manifest.model_id, module, name) == ("open_crema", CLASS, stand_in.__name__)
    assert stand_in.is_simple


def test_searches_are_as_asked_and_answers_stay_in_order(loaded, place, caplog):
    clip = [str(place / "clip.mp4")]
    usual, longer, cut, sampled, again = loaded.generate_until(
        requests(
            loaded,
            "What is it?",
            clip,
            {},
            {"max_new_tokens": 5, "num_beams": 2},
            {"until": [" "]},
            {"do_sample": True, "temperature": 0.7, "top_p": None},
            {"until": ""},
        )
    )
    assert len(usual.split()) == 2  # eval.max_new_tokens
    assert len(longer.split()) > 2
    assert cut == usual.split()[0]
    assert sampled == again == usual
    assert sum("gives the likeliest" in record.message for record in caplog.records) == 1


def test_pictures_and_sounds_in_memory_are_as_files(loaded, place):
    level, tone = np.full((20, 30, 3), 90, np.uint8), np.sin(np.arange(16000) * 0.1) / 2
    Image.fromarray(level).save(place / "level.png")
    file = place / "tone.wav"
    media_factory.write_audio(file, sound=tone.astype(np.float32), rate=16000)
    said = {}
    for name, visuals in {
        "picture": [Image.fromarray(level)],
        "picture file": [str(place / "level.png")],
        "sound": [{"array": tone, "sampling_rate": 16000}],
        "sound file": [str(file)],
        "text": None,
    }.items():
        (request,) = requests(loaded, "What?", visuals, {})
        options = [(request.args[0], f" {o}", *request.args[2:]) for o in OPTIONS]
        pairs = loaded.loglikelihood([SimpleNamespace(args=own) for own in options])
        said[name] = np.array([pair.text[0] for pair in pairs])
    np.testing.assert_allclose(said["picture"], said["picture file"], atol=1e-6)
    np.testing.assert_allclose(said["sound"], said["sound file"], atol=1e-3)
    assert abs(said["sound"] - said["text"]).max() > 1e-2
    assert abs(said["picture"] - said["text"]).max() > 1e-2


def test_a_continuation_may_come_from_the_document_or_without_media(loaded, place):
    (request,) = requests(loaded, "What?", [str(place / "clip.mp4")], {})
    text, _, *where = request.args
    made = [(text, " rain", *where), (text, lambda doc: "rain", *where), ("What?", " rain")]
    pairs = [p.text for own in made for p in loaded.loglikelihood([SimpleNamespace(args=own)])]
    assert pairs[0] == pairs[1]
    assert pairs[0][0] != pairs[2][0]
    assert all(greedy is False for _, greedy in pairs)


def test_absent_senses_are_told(loaded, place, caplog):
    loaded.generate_until(requests(loaded, "What?", [str(place / "sound.wav")], {}, {}))
    assert any(record.message.startswith("without video: 2 of 2") for record in caplog.records)
    assert not any("question alone" in record.message for record in caplog.records)


def test_a_model_that_is_shown_nothing_it_knows_says_so(stand_in, model, place, caplog):
    deaf = stand_in(str(model), senses="video")
    deaf.generate_until(requests(deaf, "What?", [str(place / "sound.wav")], {}))
    assert any("1 of 1 questions have media, and none" in r.message for r in caplog.records)


def test_media_that_cannot_be_used_end_the_run_by_name(loaded, place):
    for name in ("gone.mp4", "cut.mp4"):
        with pytest.raises(MediaError, match=f"'t/test/0'.*{name}"):
            loaded.generate_until(requests(loaded, "What?", [str(place / name)], {}))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"pretraind": "x"}, "pretraind: did you mean 'pretrained'"),
        ({"batch_size": "many"}, "batch_size many"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"senses": "video+"}, "video\\+: write names"),
        ({"device": " "}, "device: is empty"),
    ],
)
def test_arguments_that_are_none_are_refused(stand_in, model, arguments, says):
    with pytest.raises(ConfigError, match=says):
        stand_in(**{"pretrained": str(model), **arguments})


def test_what_is_no_model_is_refused(stand_in, model, place):
    with pytest.raises(WeightsError, match="nowhere"):
        stand_in(str(place / "nowhere"))
    with pytest.raises(WeightsError, match="no adapter for thermal"):
        stand_in(str(model), senses="thermal")


def test_other_requests_are_refused(loaded):
    with pytest.raises(ConfigError, match="single questions"):
        loaded.generate_until_multi_round([])
    with pytest.raises(ConfigError, match="empty continuation"):
        loaded.loglikelihood([SimpleNamespace(args=("What?", " "))])


def test_the_batch_size_may_be_the_models_own(stand_in, model):
    loaded = stand_in(str(model), batch_size="auto")
    assert loaded.batch_size == 32
    assert loaded.device.type == "cpu"  # processes talk to each other there
    assert stand_in(str(model), batch_size="4").batch_size == 4


def test_without_the_package_a_model_says_what_to_install(monkeypatch, model):
    monkeypatch.setitem(sys.modules, "lmms_eval.api.model", None)
    with pytest.raises(ConfigError, match=r"pip install 'open-crema\[lmms-eval\]'"):
        fresh_class()(str(model))
    sys.modules.pop(CLASS)


def test_an_export_tells_what_is_missing(crema, place):
    write_lines(place / "asked.jsonl", QUESTION, {**QUESTION, "video": "gone.mp4"})
    made = crema(
        "export", "lmms-eval", place / "out2", "--task", "jsonl", "--data", place / "asked.jsonl"
    )
    assert made.code == 0
    assert "crema_jsonl_open: 2 questions" in made.out
    assert "missing now: 1 media files" in made.err
    assert "gone.mp4" in made.err
    task = crema(
        "export", "lmms-eval", place / "out2", "--task", "jsnl", "--data", place / "asked.jsonl"
    )
    task.refused("unknown task 'jsnl': did you mean 'jsonl'?")
