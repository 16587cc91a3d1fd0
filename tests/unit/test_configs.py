"""The shipped configurations: they load, count what the paper counts, and are documented."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import tiny
from open_crema import config
from open_crema.config import Config
from open_crema.evaluation import published
from open_crema.evaluation.published import Row
from open_crema.model.crema import Crema
from open_crema.training.loop import Trainer
from tiny import Questions

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
REFERENCE = CONFIGS / "reference.yaml"
ALL = sorted(CONFIGS.rglob("*.yaml"))
PAPER = sorted(  # rows of a table; tests/integration/test_pretraining.py has the others
    path for path in (CONFIGS / "paper").glob("[!_]*.yaml") if not path.stem.startswith("pretrain_")
)

# A GPU's batch, learning rate, epochs, accumulation; warm-up is 1000 throughout.
TABLES_9_AND_10 = {
    "music_avqa": (24, 2e-4, 20, 1),
    "music_avqa_vafdn": (16, 2e-4, 20, 1),
    "sqa3d": (16, 2e-4, 20, 1),
    "nextqa": (16, 1e-4, 10, 1),
    "nextqa_vfdn": (8, 1e-4, 10, 2),
    "music_avqa_v_baseline": (8, 3e-5, 20, 2),
    "music_avqa_va_baseline": (8, 3e-5, 20, 2),
    "music_avqa_vaf_baseline": (8, 3e-5, 20, 2),
    "sqa3d_v_baseline": (16, 3e-5, 20, 2),
    "sqa3d_vp_baseline": (16, 3e-5, 20, 2),
    "sqa3d_vpdn_baseline": (8, 3e-5, 20, 2),
    "nextqa_v_baseline": (16, 3e-5, 10, 1),
    "nextqa_vf_baseline": (8, 3e-5, 10, 2),
    "nextqa_vfd_baseline": (4, 3e-5, 10, 4),
    "nextqa_vfdn_baseline": (4, 3e-5, 10, 4),
}
OTHERWISE = {"8epochs", "10epochs", "batch4", "zeroshot"}  # on purpose, and named so
CLAIM = re.compile(r"# Table (\d+) \(([^)]+)\), ([^,]+), ((?:[A-Z], )*[A-Z])(?=[,:.])")


def relative(path: Path) -> str:
    return path.relative_to(CONFIGS).as_posix()


def flat(tree: dict, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


@pytest.mark.parametrize("path", ALL, ids=relative)
def test_every_file_loads_alone_and_under_the_overlay(path):
    alone = config.load(path)
    over = config.load(path, overlays=[REFERENCE])
    assert config.from_dict(config.to_dict(alone)) == alone
    assert over.model.senses == alone.model.senses
    values = flat(config.to_dict(over))
    for key, value in flat(yaml.safe_load(REFERENCE.read_text())).items():
        assert values[key] == value, key


def test_no_file_says_a_key_twice():
    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            keys = [self.construct_object(key) for key, _ in node.value]
            assert len(set(keys)) == len(keys), f"{node.start_mark}: {keys}"
            return super().construct_mapping(node, deep)

    for path in ALL:
        yaml.load(path.read_text(), Strict)


def header(path: Path) -> str:
    return "".join(line for line in path.read_text().splitlines(True) if line.startswith("#"))


def claims(path: Path) -> list[tuple[int, str, str, str]]:
    """Table, task, method and letters of the rows that a file says it is."""
    found = CLAIM.findall(header(path))
    return [(int(t), task, who, own.replace(", ", "")) for t, task, who, own in found]


def ours(row: Row) -> bool:
    """CREMA, or a baseline that we have. Table 8 splits the answers of other rows' models."""
    zero_shot = row.table == 5 and not row.method.startswith("CREMA")
    other = ("AVQA", "LAVISH", "MCAN", "ClipBERT", "ScanQA", "LLaMA", "Mirasol", "SeViLA", "CMC")
    known = not row.method.startswith((*other, "CAV-MAE"))
    return known and not zero_shot and row.table != 8


def test_every_row_has_its_file_and_no_file_claims_another():
    claimed = {claim for path in PAPER for claim in claims(path)}
    rows = {(r.table, r.task, r.method, r.letters) for r in published.rows() if ours(r)}
    assert claimed == rows
    assert all(claims(path) for path in PAPER)


@pytest.mark.parametrize("path", PAPER, ids=relative)
def test_a_row_says_what_it_is(path):
    run = config.load(path)
    assert "# Step-run only: not trained at full size." in header(path)
    assert run.name == path.stem
    for table, _, method, letters in claims(path):
        assert run.model.senses == tuple(published.LETTERS[letter] for letter in letters)
        if table == 18:
            assert run.model.lora.rank == int(method.rpartition("-")[2])
        else:
            assert run.model.lora.rank == 64
        baseline = method in ("BLIP-2", "3D-LLM")
        assert (run.model.qformer.own == "each") == baseline
        kind = "self-gated" if len(letters) > 2 and not baseline else "concat"
        assert run.model.fusion.kind == (method if table == 7 and method != "video-only" else kind)
        assert run.train.exit.enabled == (method == "CREMA+early-exit")
        joint = baseline or method == "CREMA-joint"
        assert run.train.strategy == ("joint" if joint else "sequential")


@pytest.mark.parametrize("path", PAPER, ids=relative)
def test_a_row_is_trained_as_tables_9_and_10_say(path):
    train = config.load(path).train
    stem, _, last = path.stem.rpartition("_")
    assert train.warmup_steps == 1000
    assert config.load(path).data.frames == 4
    if last in OTHERWISE:
        return
    senses = "_".join(path.stem.split("_")[: 3 if path.stem.startswith("music") else 2])
    data_set = next((d for d in ("music_avqa", "sqa3d", "nextqa") if stem.startswith(d)), "nextqa")
    said = (train.batch_size, train.lr, train.epochs, train.accumulate)
    if path.stem.startswith(data_set):
        key = path.stem if last == "baseline" else senses
        assert said == TABLES_9_AND_10.get(key, TABLES_9_AND_10[data_set])


def reduced(run: Config) -> Config:
    """The row at a size that takes a moment; all that is not a size stays."""
    model = run.model
    small = {"layers": 2, "width": 16, "heads": 2, "ffn": 32, "queries": 3, "encoder_width": 12}
    model = replace(
        model, qformer=replace(model.qformer, **small), lora=replace(model.lora, rank=2)
    )
    train = replace(run.train, batch_size=2, epochs=1, epoch_steps=1)
    return replace(run, model=model, train=train)


@pytest.mark.parametrize("path", PAPER, ids=relative)
def test_one_step_of_training_moves_what_the_row_trains(path, tmp_path):
    run = reduced(config.load(path))
    torch.manual_seed(0)
    llm = tiny.backbone("encoder-decoder")
    widths = {sense: tiny.WIDTHS[sense] for sense in run.model.senses}
    model = Crema(run.model, llm, widths)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    segments = {sense: {"audio": 2, "point": 1}.get(sense, 4) for sense in run.model.senses}
    count = 2 * run.train.accumulate
    data = Questions([tiny.item(i, **segments) for i in range(count)])
    Trainer(model, run, data, tmp_path).run()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    trained = ("adapters.", "fusion.")
    assert moved
    assert all(name.startswith(trained) for name in moved), moved
    for sense in run.model.senses:
        assert any(name.startswith(f"adapters.{sense}.") for name in moved), sense
    skipped = [f"adapters.{sense}.lora" for sense in run.model.lora.skip]
    assert not any(name.startswith(prefix) for name in moved for prefix in skipped)


def test_the_overlay_is_the_released_code_and_nothing_else_changes():
    plain = flat(config.to_dict(Config()))
    over = flat(config.to_dict(config.load(REFERENCE)))
    assert {key: over[key] for key in over if over[key] != plain[key]} == {
        "model.llm_dropout": 0.1,
        "model.encoders.audio_window": 5.12,
        "model.encoders.audio_max_windows": 2,
        "model.encoders.audio_windows": "start",
        "model.encoders.point_choice": "reference",
        "model.prompt.layout": "reference",
        "model.prompt.max_text_tokens": 77,
        "model.prompt.overflow": "truncate",
        "model.align.audio": "mean",
        "train.schedule": "epoch-cosine",
        "train.exit.metric": "lora-l2",
        "train.exit.history": "last-step",
        "train.exit.first_epoch": 5,
        "train.exit.joint": "observe",
        "eval.beams": 5,
        "eval.length_penalty": -1.0,
    }


def documented() -> list[tuple[list[str], list[str]]]:
    """Keys and cells of each row of the table of differences."""
    text = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[1:]]
    return [(re.findall(r"`([^`]+)`", row[0]), row) for row in cells]


def leading_value(cell: str) -> str | None:
    found = re.match(r"`([^`]*)`", cell)
    return found and found[1]


def test_the_table_of_differences_is_one_table():
    rows = documented()
    assert len(rows) > 40
    lines = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8").splitlines()
    places = [number for number, line in enumerate(lines) if line.startswith("|")]
    assert places == list(range(places[0], places[-1] + 1)), "text between its rows"
    assert {len(cells) for _, cells in rows} == {5}
    keys = [key for keys, _ in rows for key in keys]
    assert len(set(keys)) == len(keys)


def test_documented_keys_exist_and_their_defaults_are_true():
    plain = flat(config.to_dict(Config()))
    checked = 0
    for keys, cells in documented():
        assert set(keys) <= set(plain)
        if len(keys) == 1:
            value = leading_value(cells[3])
            assert value is not None, f"{keys[0]}: our cell must begin with the default"
            assert yaml.safe_load(value) == plain[keys[0]], keys[0]
            checked += 1
    assert checked > 20


def test_what_the_overlay_changes_is_documented_with_its_value():
    plain = flat(config.to_dict(Config()))
    released = {keys[0]: leading_value(cells[2]) for keys, cells in documented() if len(keys) == 1}
    for key, value in flat(yaml.safe_load(REFERENCE.read_text())).items():
        if value != plain[key]:
            assert yaml.safe_load(released[key] or "") == value, key
        elif released.get(key):
            assert yaml.safe_load(released[key]) == value, key


def test_what_is_documented_for_the_released_code_is_in_the_overlay():
    """Every released value that one key can take, but for what goes with the scale or the data."""
    overlay = flat(yaml.safe_load(REFERENCE.read_text()))
    elsewhere = {"model.lora.rank"}
    for keys, cells in documented():
        if len(keys) == 1 and leading_value(cells[2]) and keys[0] not in elsewhere:
            assert keys[0] in overlay, keys[0]
