"""The page as HTML, of runs that were made up; a browser opens it in an integration test."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import media_factory
from fabricated_run import CONFIG, write_log, write_results
from open_crema import cli
from open_crema.errors import CremaError
from open_crema.evaluation.page import build, cases, found
from open_crema.evaluation.page.pictures import spectrogram
from open_crema.evaluation.result import Skipped
from open_crema.media import Audio, Cloud, write_maps
from open_crema.media.write import write_cloud
from open_crema.tasks import jsonl
from tiny import one_seeded_thread  # noqa: F401

SENSES = ("video", "audio", "thermal")
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"


class Parsed(HTMLParser):
    """Tags with their attributes, and the text that a reader sees."""

    VOID = frozenset({"meta", "link", "img", "br", "wbr", "input"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.ids, self.said = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.said.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.said).split())

    def of(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Media of two clips, and questions in pairs about them."""
    folder = tmp_path_factory.mktemp("clips")
    media_factory.write_video(folder / "a.mp4", sound="tone")
    heat = np.full((4, 24, 32), 20, np.float32)
    for name, hot in (("cool", 21), ("hot", 60)):
        heat[:, 5:15, 5:15] = hot
        write_maps(folder / f"{name}.npz", thermal=heat, times=np.arange(4) / 4)
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (500, 3)).astype(np.float32)
    write_cloud(folder / "room.ply", points, rng.integers(0, 255, (500, 3)).astype(np.uint8))
    return folder


def write_questions(folder, clips, *, paired=True, question="Is it hot?", count=6):
    """Half of them multiple choice."""
    path = folder / "test.jsonl"
    lines = []
    for pair in range(count):
        for name, answer in (("cool", "no"), ("hot", "yes")):
            line = {
                "id": f"{pair}-{name}",
                "video": "a.mp4",
                "media": {"thermal": f"{name}.npz", "point": "room.ply"},
                "question": question,
                "answer": answer,
                "type": f"type_{pair % 3}",
                "needs": ["thermal"],
            }
            line |= {"options": ["yes", "no"]} if pair % 2 else {"candidates": ["yes", "no"]}
            line |= {"pairs": {"thermal": f"pair {pair}"}} if paired else {}
            lines.append(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path, jsonl.load(path, media_root=clips)


@pytest.fixture
def run(tmp_path, clips):
    """A run with three results."""
    out = tmp_path / "out"
    data, samples = write_questions(tmp_path, clips)
    config = {**CONFIG, "data": {**CONFIG["data"], "media_root": str(clips)}}
    skipped = [Skipped("5-hot", "type_2", "?", "unusable media", "gone", samples[-1].pairs)]
    for senses in ((), ("video", "audio"), SENSES):
        name = "+".join(senses) or "blind"
        place = out / "results" / name
        write_results(place, samples, senses, data, skipped=skipped, config=config)
    write_log(out, SENSES)
    return out


def page(folder, **options):
    return Parsed(build.write(folder, **options).read_text(encoding="utf-8"))


def test_it_holds_every_part_and_the_same_bytes_again(run):
    there = page(run)
    for name in ("results", "clips", "gates", "training", "confusion", "provenance"):
        assert name in there.ids
        assert any(link.get("href") == f"#{name}" for link in there.of("a"))
    assert len(there.ids) == len(set(there.ids))
    first = (run / "report.html").read_bytes()
    assert build.write(run).read_bytes() == first
    assert "12 expected = 11 scored + 1 skipped (1 unusable media)" in there.text
    assert "Given video + audio + thermal, the model answers" in there.text


def test_rows_are_guesses_and_then_every_set_of_senses(run):
    suite = cases.suites(found.find(run).results)[0]
    assert suite.labels == ("question only", "video + audio", "video + audio + thermal")
    there = page(run).text
    table = there[there.index("given N accuracy") : there.index("chosen by rule")]
    places = [table.index(word) for word in ("chance", "blind", "video", "thermal")]
    assert places == sorted(places)
    assert "type_ 0" in there  # may be broken there
    assert "pairs" in table


def test_answers_of_one_sample_stand_together(run):
    suite = cases.suites(found.find(run).results)[0]
    case = next(c for c in suite.cases if c.id == "0-hot")
    assert [view.label for view in case.views] == list(suite.labels)
    assert case.question == "Is it hot?"
    assert case.answers == ("yes",)
    assert case.fullest.gates["thermal"]
    right = [view.correct for view in case.views]
    assert right[-1]


def test_chosen_are_telling_ones_of_all_types(run):
    suites = cases.suites(found.find(run).results)
    for count in (3, 8, 50):
        chosen = cases.choose(suites, count, lambda suite, case: True)
        assert len(chosen) == min(count, 11)
        assert len({case.id for _, case in chosen}) == len(chosen)
        assert {case.type for _, case in chosen} == {"type_0", "type_1", "type_2"}
        worth = [case.differs for _, case in chosen]
        assert worth == sorted(worth, reverse=True)


def test_those_with_media_come_first(run):
    suites = cases.suites(found.find(run).results)
    kept = {"1-hot", "4-cool"}
    chosen = cases.choose(suites, 2, lambda suite, case: case.id in kept)
    assert {case.id for _, case in chosen} == kept


def test_senses_are_pictures_and_sounds(run):
    there = page(run, clips=2)
    pictures = there.of("img")
    assert len(pictures) == 2 * (4 + 4 + 1 + 3)
    assert all(p["src"].startswith("data:image/webp;base64,") for p in pictures)
    assert all(p["alt"] for p in pictures)
    assert len(there.of("audio")) == 2
    assert "500 points, seen from 3 sides" in there.text
    assert "not given" in there.text
    assert "leads, not fused" in there.text
    assert re.search(r"\d % of the fused tokens", there.text)
    assert page(run, clips=0).of("img") == []


def test_nothing_comes_from_outside_and_no_script_of_others_runs(run):
    there = page(run)
    (policy,) = (m["content"] for m in there.of("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'; img-src data:; media-src data:;")
    assert re.search(r"script-src 'sha256-[\w+/=]+';", policy)
    for _, attributes in there.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:", "#"))
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in (run / "report.html").read_text()


def test_tables_have_scopes_and_scrolling_regions_names(run):
    there = page(run)
    assert all(cell["scope"] in ("row", "col") for cell in there.of("th"))
    for region in (a for _, a in there.tags if a.get("role") == "region"):
        assert region["tabindex"] == "0"
        assert region.get("aria-label") or region["aria-labelledby"] in there.ids


def test_text_of_data_stays_text(tmp_path, clips):
    data, samples = write_questions(tmp_path, clips, question=EVIL)
    config = {**CONFIG, "name": EVIL}
    write_results(tmp_path / "out", samples, SENSES, data, config=config)
    there = page(tmp_path / "out")
    assert len(there.of("script")) == 1
    assert not any("onerror" in attributes for _, attributes in there.tags)
    assert EVIL in there.text
    assert "<script>alert" not in (tmp_path / "out" / "report.html").read_text()


def test_media_that_are_gone_are_said_to_be(tmp_path, clips):
    data, samples = write_questions(tmp_path, clips)  # media paths start beside the data file
    write_results(tmp_path / "out", samples, SENSES, data)
    there = page(tmp_path / "out")
    assert there.of("img") == []
    assert "their files are no longer there" in there.text
    (tmp_path / "a.mp4").write_bytes((clips / "a.mp4").read_bytes())
    there = page(tmp_path / "out", clips=1)
    assert len(there.of("img")) == 5
    assert re.search(r"\w+\.npz: no longer there", there.text)


def test_a_data_file_that_is_gone_or_changed_is_said_to_be(run, tmp_path):
    data = tmp_path / "test.jsonl"
    text = data.read_text()
    data.write_text(text.replace("Is it hot?", "Is it cold?"))
    there = page(run)
    assert "has changed since it was answered" in there.text
    assert "now asks something else" in there.text
    data.write_text("{")
    assert "The data file cannot be read" in page(run).text
    data.unlink()
    there = page(run)
    assert "is no longer there" in there.text
    assert "the data file that names them was not found" in there.text
    assert there.of("table")


def test_a_data_file_is_found_above_the_results(run, tmp_path, monkeypatch):
    """Configurations name files from where the command ran."""
    for file in run.rglob("results.json"):
        file.write_text(file.read_text().replace(str(tmp_path / "test.jsonl"), "test.jsonl"))
    monkeypatch.chdir("/")
    assert page(run).of("img")


def test_without_pairs_and_types(tmp_path, clips):
    data, samples = write_questions(tmp_path, clips, paired=False, count=1)
    write_results(tmp_path / "out", samples, ["video"], data)
    there = page(tmp_path / "out")
    assert "both of two questions" not in there.text
    assert "type_ 0" not in there.text
    assert "gates" not in there.ids


def test_many_types_are_rows(tmp_path, clips):
    data, samples = write_questions(tmp_path, clips)
    for line, sample in enumerate(samples):
        object.__setattr__(sample, "type", f"kind {line}")
    write_results(tmp_path / "out", samples, SENSES, data)
    there = page(tmp_path / "out")
    assert "By type of question" in there.text
    assert all("open" not in d for d in there.of("details") if d.get("class") == "card")


def test_results_of_two_data_files_are_kept_apart(tmp_path, clips):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        data, samples = write_questions(tmp_path / name, clips, question=f"Is {name} hot?")
        write_results(tmp_path / "out" / name, samples, SENSES, data)
    suites = cases.suites(found.find(tmp_path / "out").results)
    assert len(suites) == 2
    there = page(tmp_path / "out")
    assert there.text.count("Given video + audio + thermal, the model answers") == 2
    assert f"Data: {tmp_path / 'one' / 'test.jsonl'}" in there.text


def test_results_with_the_same_senses_have_their_folders_names(tmp_path, clips):
    data, samples = write_questions(tmp_path, clips)
    for name in ("old", "new"):
        write_results(tmp_path / "out" / name, samples, SENSES, data)
    (suite,) = cases.suites(found.find(tmp_path / "out").results)
    assert suite.labels == ("video + audio + thermal (new)", "video + audio + thermal (old)")


def test_a_training_without_results(tmp_path):
    write_log(tmp_path, SENSES)
    there = page(tmp_path)
    assert "nothing has been evaluated yet" in there.text
    assert {"training", "provenance"} <= set(there.ids)
    assert not {"results", "clips", "confusion"} & set(there.ids)
    for title in ("Training loss", "Gradient by sense", "Validation", "Alignment stage"):
        assert title in there.text
    assert "thermal exits" in there.text
    assert "Early-exit indicator by epoch" in there.text


def test_joint_training_has_one_loss_and_a_gradient_a_sense(tmp_path):
    gradient = {"video": 2e-4, "audio": 0.5}
    line = {"kind": "step", "epoch": 0, "sense": "all", "loss": 1.5, "gradient": gradient}
    lines = [json.dumps({**line, "step": n}) for n in range(500)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    there = page(tmp_path).text
    assert "all senses 1.5" in there
    assert "video 0.0002 audio 0.5" in there
    assert "gradient, logarithmic by step" in there


def test_broken_lines_are_named_and_the_rest_is_shown(run):
    log = run / "log.jsonl"
    odd = '{"kind": "step", "step": 1, "epoch": 0, "loss": NaN}\n["x"]\n{"kind": ["x"]}\nnonsense\n'
    log.write_text(odd + log.read_text() + '{"kind": "step", "st')  # cut off: no problem
    broken = run / "results" / "video+audio" / "results.json"
    broken.write_text(broken.read_text()[:50])
    with (run / "results" / "video+audio+thermal" / "predictions.jsonl").open("a") as file:
        file.write('{"id": "odd"}\n')
    there = page(run)
    text = there.text
    assert "its step and epoch and loss are no numbers" in text
    assert "log.jsonl, line 2: left out, it is not a JSON object" in text
    assert "log.jsonl, line 4: left out, it is not JSON" in text
    assert text.count("left out") == 4
    assert "video+audio/results.json: cannot be used as results" in text
    assert {"results", "training"} <= set(there.ids)


def test_predictions_that_are_gone_leave_the_table(run):
    for file in run.rglob("predictions.jsonl"):
        file.unlink()
    there = page(run)
    assert "cannot be read (No such file or directory)" in there.text
    assert "results" in there.ids
    assert "clips" not in there.ids


@pytest.mark.parametrize("odd", [{}, {"train": 3}, {"model": {"senses": ["video", "smell"]}}])
def test_configurations_of_other_versions_do_not_matter(run, odd):
    for file in run.rglob("results.json"):
        summary = json.loads(file.read_text())
        file.write_text(json.dumps({**summary, "config": {**odd, "unheard_of": 1}}))
    assert page(run).of("table")


def test_a_folder_with_nothing_to_show_is_refused(tmp_path, capsys):
    (tmp_path / "out" / "checkpoints").mkdir(parents=True)
    write_log(tmp_path / "out" / "checkpoints", SENSES)
    with pytest.raises(CremaError, match=r"no results\.json.*no log\.jsonl"):
        build.write(tmp_path / "out")
    assert cli.main(["report", str(tmp_path / "out")]) == 2
    assert "nothing to show" in capsys.readouterr().err
    assert cli.main(["report", str(tmp_path / "gone")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_the_command_writes_where_it_is_told(tmp_path, capsys):
    write_log(tmp_path / "out", SENSES)
    target = tmp_path / "new" / "page.html"
    assert cli.main(["report", str(tmp_path / "out"), "--out", str(target), "--clips", "0"]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert target.read_text().startswith("<!DOCTYPE html>")
    assert [p.name for p in target.parent.iterdir()] == ["page.html"]
    (tmp_path / "file").touch()
    odd = tmp_path / "file" / "page.html"
    assert cli.main(["report", str(tmp_path / "out"), "--out", str(odd)]) == 2
    with pytest.raises(SystemExit):
        cli.main(["report", str(tmp_path / "out"), "--clips", "-1"])


def test_a_spectrogram_shows_when_and_how_high():
    times = np.arange(16_000) / 16_000
    high = np.where(times < 0.5, np.sin(2 * np.pi * 300 * times), np.sin(2 * np.pi * 4000 * times))
    picture = spectrogram(Audio(high.astype(np.float32), 16_000)).sum(axis=2).astype(int)
    early, late = picture[:, :100].sum(axis=1).argmax(), picture[:, -100:].sum(axis=1).argmax()
    assert early > 0.75 * len(picture)  # low notes at the bottom
    assert late < 0.45 * len(picture)
    assert spectrogram(Audio(np.full(3, 0.1, np.float32), 16_000)).size


def test_a_cloud_without_colours_and_frames_of_many_are_drawn():
    from open_crema.evaluation.page.pictures import MOST_FRAMES, draw
    from open_crema.media import Frames

    points = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    assert len(draw(Cloud(points), "point", 4).pictures) == 3
    times = np.arange(32)[:, None] + np.array([0.0, 1.0])
    drawn = draw(Frames(np.zeros((32, 8, 8, 3), np.uint8), times), "video", 20)
    assert len(drawn.pictures) == MOST_FRAMES
    assert drawn.note == "6 of the 20 frames"
    assert draw(object(), "smell", 4).note


def test_scores_published_numbers_and_other_results_have_tables(tmp_path, clips):
    data, samples = write_questions(tmp_path, clips)
    out = tmp_path / "out"
    place = write_results(out, samples, SENSES, data)
    summary = json.loads(place.read_text())
    whole = {**summary, "types": {}}
    published = {
        "differs": "another split",
        "model": "other models",
        "ours": {"Avg": {"n": 4, "strict": 0.5, "lenient": 0.75}},
        "rows": [{"table": 3, "method": "CREMA", "senses": "VF", "values": {"Avg": "72.4"}}],
    }
    summary |= {
        "groups": {"Causal": whole},
        "scores": {"task": "nextqa", "strict": "by <likelihood>", "lenient": "by letters"},
        "difficulty": {"by": "zero", "unknown": 0, "easy": whole, "hard": None},
        "published": published,
    }
    place.write_text(json.dumps(summary))
    point = {"rate": 0.5, "accuracy": 0.5, "interval": [0.4, 0.6]}
    missing = {"missing": 1, "accuracy": 0.3, "least": 0.2, "most": 0.4, "subsets": 2}
    lost = {"senses": ["video", "audio"], "random": [point], "structured": [missing]}
    (out / "dropout.json").write_text(json.dumps(lost))
    (out / "compare.json").write_text('{"strict": {}}')
    shown = page(out).text
    assert "Strict: by <likelihood>. Lenient: by letters." in shown
    assert "Causal" in shown
    assert "Easy: right in zero." in shown
    assert "CREMA VF 3 72.4" in shown
    assert "Not comparable: another split." in shown
    assert "each with probability 0.5 50.0 40.0 – 60.0" in shown
    assert "1 of 2 30.0 20.0 – 40.0" in shown
    assert "compare.json: left out" in shown
