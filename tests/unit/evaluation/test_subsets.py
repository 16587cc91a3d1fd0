"""Several sets of senses in one pass: the same answers as one by one, with less work."""

import dataclasses
import json

import pytest
from named_features import NamedFeatures, ask, dataset
from rich.console import Console

import tiny
from open_crema.config import EvalConfig, from_dict
from open_crema.data.dataset import FeatureDataset
from open_crema.errors import ConfigError, CremaError
from open_crema.evaluation import subsets
from open_crema.evaluation.run import evaluate, evaluate_each
from open_crema.evaluation.subsets import choose_subsets, matrix, name_of, write_subsets

THREE = ("video", "audio", "thermal")
COLOURS = ("red", "light blue", "green")
CONFIG = EvalConfig(batch_size=2, max_new_tokens=4)
ALL = choose_subsets("all", THREE)


def questions():
    return [
        ask("a", options=COLOURS, video="1", audio="2", thermal="3", type="colour"),
        ask("b", answer="two", video="2", audio="mute", type="count", question="how many"),
        ask("x", options=COLOURS, video="broken", audio="1", type="colour"),
        ask("c", options=COLOURS[:2], video="3", type="colour", question="which one of them"),
        ask("d", answer="one", audio="5", thermal="5", type="count", question="how many"),
        ask("e", options=COLOURS, answer="green", audio="7", type="colour"),
        ask("f", options=COLOURS, video="6", audio="6", thermal="1", type="colour"),
        ask("y", answer="", video="1", type="count"),
    ]


def as_they_are(found):
    """Predictions and skipped ones, floats included, without the confidences."""
    return [dataclasses.replace(p, confidence=None) for p in found.predictions], found.skipped


@pytest.mark.parametrize(
    ("which", "chosen"),
    [
        (
            "all",
            ["blind", *THREE, "video+audio", "video+thermal", "audio+thermal", "+".join(THREE)],
        ),
        ("drop-one", ["video+audio+thermal", "audio+thermal", "video+thermal", "video+audio"]),
        ("single", list(THREE)),
        ("add-one", ["video", "video+audio", "video+thermal", "video+audio+thermal"]),
        ("thermal", ["thermal"]),
        ("audio+video,video+audio, blind,thermal", ["video+audio", "blind", "thermal"]),
    ],
)
def test_which_subsets(which, chosen):
    found = choose_subsets(which, ["thermal", "video", "audio"])
    assert [name_of(senses) for senses in found] == chosen


@pytest.mark.parametrize(
    ("which", "chosen"), [("drop-one", ["audio", "blind"]), ("add-one", ["audio"])]
)
def test_of_one_sense(which, chosen):
    assert [name_of(senses) for senses in choose_subsets(which, ["audio"])] == chosen


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("video+termal", "no sense 'termal'; did you mean 'thermal'"),
        ("video,depth", "no sense 'depth'; .*of video, audio, thermal and blind"),
        ("dropone", "did you mean 'drop-one'"),
        ("video,", "no sense ''"),
        ("video++audio", "no sense ''"),
        ("video+blind", "no sense 'blind'"),
        ("", "no sense ''"),
    ],
)
def test_subsets_that_there_are_not(which, said):
    with pytest.raises(ConfigError, match=said):
        choose_subsets(which, THREE)


def test_all_has_an_end():
    senses = ["video", "audio", "flow", "depth", "normal", "point"]
    assert len(choose_subsets("all", senses)) == 64
    with pytest.raises(ConfigError, match=r"7 senses have 128 subsets.*drop-one.*list"):
        choose_subsets("all", [*senses, "touch"])
    assert len(choose_subsets("drop-one", [*senses, "touch"])) == 8


@pytest.mark.parametrize("kind", ["decoder-only", "encoder-decoder"])
@pytest.mark.parametrize("options", [{}, {"fusion": {"kind": "concat"}}])
@pytest.mark.parametrize("policy", ["skip", "mask"])
def test_each_subset_is_answered_to_the_bit_as_if_alone(kind, options, policy):
    model = tiny.crema(*THREE, kind=kind, **options)
    config = dataclasses.replace(CONFIG, on_error=policy)
    train = questions()[:3]
    data = dataset(*questions(), senses=THREE)
    together = evaluate_each(model, data, ALL, config=config, train=train)
    for senses, found in zip(ALL, together, strict=True):
        fresh = dataset(*questions(), senses=THREE)
        assert found == evaluate(model, fresh, config=config, senses=senses, train=train)
    # The senses must matter, or this test shows nothing.
    assert len({tuple(p.prediction for p in e.predictions) for e in together}) > 3


def test_confidences_change_nothing_else():
    model, data = tiny.crema(*THREE), dataset(*questions(), senses=THREE)
    plain = evaluate_each(model, data, ALL, config=CONFIG)
    sure = evaluate_each(model, data, ALL, config=CONFIG, confident=True)
    assert list(map(as_they_are, plain)) == list(map(as_they_are, sure))
    assert "confidence" not in plain[0].predictions[0].to_dict()
    for found in sure:
        for said in found.predictions:
            assert 0 < said.confidence < 1
            assert said.to_dict()["confidence"] == said.confidence
            if said.options:
                assert said.confidence == said.probabilities[said.options.index(said.prediction)]


def test_a_sense_is_read_and_queried_once_for_all_subsets(monkeypatch):
    sound = [ask(str(i), options=COLOURS, video="1", audio="2", thermal="3") for i in range(5)]
    model, read, queried = tiny.crema(*THREE), [], []
    query, features = model.query, NamedFeatures.features
    monkeypatch.setattr(model, "query", lambda s, x: queried.append(s) or query(s, x))
    monkeypatch.setattr(
        NamedFeatures, "features", lambda self, a, s: read.append((a.id, s)) or features(self, a, s)
    )
    data = FeatureDataset(sound, NamedFeatures(*THREE), frames=4, memory_bytes=0)
    evaluate_each(model, data, ALL, config=CONFIG)
    assert sorted(queried) == sorted([*THREE] * 3)  # three batches
    assert len(read) == len(set(read)) == 15


def test_only_what_is_needed_is_queried(monkeypatch):
    model, queried = tiny.crema(*THREE), []
    query = model.query
    monkeypatch.setattr(model, "query", lambda s, x: queried.append(s) or query(s, x))
    evaluate_each(
        model, dataset(*questions(), senses=THREE), [("audio",), ()], config=CONFIG, blind=False
    )
    assert set(queried) == {"audio"}


def found_for(which, samples=None, **options):
    model = tiny.crema(*THREE)
    data = dataset(*(samples or questions()), senses=THREE)
    chosen = choose_subsets(which, THREE)
    return model, evaluate_each(model, data, chosen, config=CONFIG, **options)


def drawn(found, width):
    console = Console(width=width, record=True)
    for table in matrix(found, width):
        console.print(table)
    return console.export_text()


def test_the_matrix_has_every_rate():
    _, found = found_for("all")
    text = drawn(found, 120)
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    cells = {line[0]: line[1:] for line in lines if line}
    for evaluation in found:
        rates = [evaluation.accuracy, *(row.accuracy for row in evaluation.types.values())]
        shown = cells[name_of(evaluation.senses)]
        assert [shown[0], *shown[2:]] == [f"{100 * rate:.1f}" for rate in rates]
    assert [cells["N"][0], *cells["N"][2:]] == ["6", "4", "2"]
    blind = found[0]
    assert name_of(blind.senses) == "blind"
    assert text.count("blind") == 1
    assert cells["chance"][0] == f"{100 * blind.overall.chance:.1f}"
    assert "majority" not in cells
    _, single = found_for("single")
    assert f"│ blind   │    {100 * blind.accuracy:.1f}" in drawn(single, 120)
    assert "expected 8 = scored 6 + skipped 2 (1 no answer to compare with;" in text
    assert "without audio: 1 a mute sound track" in text


def test_types_that_do_not_fit_go_on_in_another_table():
    samples = [ask(f"{i}", options=COLOURS, video="1", type=f"a_long_type_{i}") for i in range(20)]
    _, found = found_for("single", samples)
    text = drawn(found, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    whole = "".join(drawn(found, 4000).split())
    for i in range(20):
        assert whole.count("type_") == 20
        assert f" {i} " in text
    assert len(matrix(found, 80)) > 1 == len(matrix(found, 4000))


def test_pairs_have_a_column():
    samples = [
        dataclasses.replace(
            ask(f"{i}", options=COLOURS, answer=COLOURS[i % 2], audio=str(i)),
            pairs={"audio": str(i // 2)},
        )
        for i in range(4)
    ]
    _, found = found_for("single", samples, train=samples)
    text = drawn(found, 100)
    assert "both right" in text
    assert "(2)" in text
    assert "majority" in text


def test_files(tmp_path):
    data = tmp_path / "test.jsonl"
    data.touch()
    model, found = found_for("drop-one")
    run = from_dict({"model": {"senses": list(THREE)}})
    path = write_subsets(found, tmp_path / "out", config=run, model=model, data=data)
    rows = json.loads(path.read_text())
    assert rows == json.loads(json.dumps(subsets.rows(found)))
    for row, evaluation in zip(rows, found, strict=True):
        folder = tmp_path / "out" / row["folder"]
        results = json.loads((folder / "results.json").read_text())
        assert results["senses"] == row["senses"] == list(evaluation.senses)
        assert {k: results[k] for k in row if k != "folder"} == {
            k: row[k] for k in row if k != "folder"
        }
        assert len((folder / "predictions.jsonl").read_text().splitlines()) == 8
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "subsets.json",
        *(name_of(e.senses) for e in found),
    }


def test_a_place_that_cannot_be_written(tmp_path):
    model, found = found_for("single")
    (tmp_path / "taken").touch()
    run = from_dict({"model": {"senses": list(THREE)}})
    with pytest.raises(CremaError, match=r"taken.*cannot be written"):
        write_subsets(found, tmp_path / "taken", config=run, model=model, data=tmp_path / "taken")
