import importlib.util
import json
import tomllib
from pathlib import Path

import pytest
import yaml

import lmms_stand_in
import open_crema
from open_crema import tasks
from open_crema.data.sample import Sample
from open_crema.errors import ConfigError, DataError
from open_crema.evaluation import metrics
from open_crema.harness.export import export
from open_crema.tasks import lenience

ROOT = Path(open_crema.__file__).parents[2]
OPEN = {
    "id": "o1",
    "video": "clip.mp4",
    "media": {"thermal": {"path": "warm", "rate": 25, "start": 0.4}},
    "question": "What is that?",
    "answers": ["a Violin", "fiddle"],
    "type": "things, small",
}
CHOICE = {
    "id": "c1",
    "video": "clip.mp4",
    "question": "Which?",
    "options": ["the dog", "the cat", "nothing"],
    "answer": "the cat",
}
REPLIES = ["", " ", ".", "o", "Violin", "a violin.", "A  VIOLIN", "fiddle!", "x", "2", "violin, it"]


def write(folder, *lines):
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def utils_of(folder):
    spec = importlib.util.spec_from_file_location("utils", folder / "utils.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def docs_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def made(tmp_path):
    write(tmp_path, OPEN, CHOICE)
    found = export(tasks.get("jsonl"), tmp_path / "out", tmp_path / "test.jsonl", name="mine")
    return tmp_path / "out", found


def test_each_kind_of_question_is_a_task_and_all_are_a_group(made):
    folder, found = made
    assert found.counts == {"mine_open": 1, "mine_options": 1, "mine_options_generated": 1}
    group = yaml.safe_load((folder / "mine.yaml").read_text())
    assert group == {"group": "mine", "task": ["mine_open", "mine_options"]}
    configs = {name: lmms_stand_in.load_yaml(folder / f"{name}.yaml") for name in found.counts}
    kinds = [config["output_type"] for config in configs.values()]
    assert kinds == ["generate_until", "multiple_choice", "generate_until"]
    (readme,) = folder.glob("README.md")
    assert "--tasks mine --include_path ." in readme.read_text()
    assert "$" not in readme.read_text()


def test_a_questions_own_files_are_found_from_anywhere(made, monkeypatch):
    folder, found = made
    (doc,) = docs_of(folder / "open.jsonl")
    utils = utils_of(folder)
    root = folder.parent
    thermal = {"sense": "thermal", "path": str(root / "warm"), "rate": 25.0, "start": 0.4}
    video = {"sense": "video", "path": str(root / "clip.mp4"), "rate": 0.0, "start": 0.0}
    assert utils.doc_to_visual(doc, {"senses": "own"}) == [video, thermal]
    assert utils.doc_to_visual(doc, {"senses": "paths"}) == [str(root / "clip.mp4")]
    assert utils.doc_to_visual(doc) == [str(root / "clip.mp4")]
    monkeypatch.setenv("CREMA_MEDIA", "/elsewhere")
    assert utils_of(folder).doc_to_visual(doc) == ["/elsewhere/clip.mp4"]
    assert found.missing == [str(root / "clip.mp4"), str(root / "warm")]


def test_prompts_and_targets_are_the_samples_own(made):
    folder, _ = made
    first, second = tasks.load("jsonl", folder.parent / "test.jsonl")
    utils = utils_of(folder)
    (doc,), (choice,) = docs_of(folder / "open.jsonl"), docs_of(folder / "options.jsonl")
    assert utils.doc_to_text(doc) == first.question
    assert utils.doc_to_target(doc) == "a Violin"
    assert utils.doc_to_text(choice) == second.question
    assert utils.doc_to_choice(choice) == list(second.options)


@pytest.mark.parametrize("said", REPLIES)
def test_both_scores_of_a_text_are_those_of_evaluation(made, said):
    folder, _ = made
    task, (sample, _) = tasks.get("jsonl"), tasks.load("jsonl", folder.parent / "test.jsonl")
    (doc,) = docs_of(folder / "open.jsonl")
    scores = utils_of(folder).process_open(doc, [said])
    assert scores["exact_match"]["score"] == metrics.is_correct(sample, said)
    assert scores["lenient"]["score"] == task.lenient(sample, said)
    assert scores["lenient_things; small"] == scores["lenient"]


def test_what_is_lenient_is_each_tasks_own():
    """A task's way is known by what it says of it: a new way must be added to the export."""
    from open_crema.harness.export import _RULES

    sample = Sample("1", "?", {}, answers=("Two violins", "cello"))
    for task in (tasks.get(name) for name in tasks.TASKS):
        if task.lenience == lenience.LETTER:
            continue
        rule = _RULES.get(task.lenience)
        for said in [*REPLIES, "two", "violins", "two violins, really", "</s>two violins\nx"]:
            expected = metrics.exact_match(said, sample.answers)
            if rule is not None:
                expected = getattr(lenience, rule)(said, sample.answers)
            assert task.lenient(sample, said) == expected, (task.name, said)


def test_options_are_chosen_by_the_least_loss(made):
    folder, _ = made
    utils, (doc,) = utils_of(folder), docs_of(folder / "options.jsonl")
    right = [(2.0, False), (0.5, True), (1.0, False)]
    assert utils.process_options(doc, right)["acc"]["score"] == 1
    assert utils.process_options(doc, [str(pair) for pair in right])["acc"]["score"] == 1
    assert utils.process_options(doc, right[::-1])["acc"]["score"] == 1
    assert utils.process_options(doc, [(0.1, False), *right[1:]])["acc"]["score"] == 0


@pytest.mark.parametrize(
    ("said", "strict", "lenient"),
    [
        ("The cat.", 1, 1),
        ("b", 1, 1),
        ("(B)", 1, 1),
        ("Option B", 1, 1),
        ("Option B: the cat", 0, 1),
        ("B. the cat", 0, 1),
        ("The answer is: (B)", 0, 1),
        ("the dog", 0, 0),
        ("A", 0, 0),
        ("D", 0, 0),
        ("beware of the cat", 0, 0),
        ("a big cat", 0, 0),
        ("", 0, 0),
    ],
)
def test_replies_are_read_strictly_and_leniently(made, said, strict, lenient):
    folder, _ = made
    scores = utils_of(folder).process_generated(docs_of(folder / "options.jsonl")[0], [said])
    assert (scores["acc"]["score"], scores["lenient"]["score"]) == (strict, lenient)


def test_what_is_to_be_said_for_an_option_is_said(tmp_path):
    """SeViLA's layout of NExT-QA: the LLM answers "Option A"."""
    entry = {"video": "v1", "num_option": 5, "qid": "CW_v1_1", "answer": 1, "question": "why"}
    entry |= {f"a{i}": text for i, text in enumerate(["run", "sit", "eat", "hop", "nap"])}
    (tmp_path / "val.json").write_text(json.dumps([entry]))
    found = export(tasks.get("nextqa"), tmp_path / "out", tmp_path / "val.json")
    assert found.name == "crema_nextqa"
    (doc,) = docs_of(tmp_path / "out" / "options.jsonl")
    assert doc["said"][1] == "Option B"
    assert doc["clip"] == "v1"
    utils = utils_of(tmp_path / "out")
    assert utils.process_generated(doc, ["option b"])["acc"]["score"] == 1
    assert "lenient" not in utils.process_options(doc, [(1.0, False)] * 5)


def test_questions_without_an_answer_are_counted(tmp_path):
    rows = [["f1.mp4", "dog"], ["f2.mp4", ""]]
    (tmp_path / "test.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    found = export(tasks.get("vggsound"), tmp_path / "out", tmp_path / "test.csv")
    assert found.counts == {"crema_vggsound_open": 1}
    assert found.unanswered == 1
    (tmp_path / "test.csv").write_text("f2.mp4,\n")
    with pytest.raises(DataError, match="none of its 1 questions names an answer"):
        export(tasks.get("vggsound"), tmp_path / "out", tmp_path / "test.csv")
    assert found.counts == {"crema_vggsound_open": len(docs_of(tmp_path / "out" / "open.jsonl"))}


def test_an_export_replaces_an_export_and_nothing_else(made, tmp_path):
    folder, _ = made
    data = write(tmp_path, CHOICE)
    export(tasks.get("jsonl"), folder, data, name="other")
    assert {path.name for path in folder.glob("*.yaml")} == {
        "other.yaml",
        "other_options.yaml",
        "other_options_generated.yaml",
    }
    (folder / "utils.py").write_text("mine = 1\n")
    with pytest.raises(ConfigError, match="holds other things than an export"):
        export(tasks.get("jsonl"), folder, data)
    with pytest.raises(ConfigError, match="holds other things"):
        export(tasks.get("jsonl"), data, data)
    with pytest.raises(ConfigError, match="name 'a b': use letters"):
        export(tasks.get("jsonl"), tmp_path / "new", data, name="a b")


def test_the_entry_point_is_the_manifest():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, function = project["entry-points"]["lmms_eval.models"]["open_crema"].split(":")
    assert function in vars(importlib.import_module(module))
    assert "lmms-eval" in project["optional-dependencies"]
