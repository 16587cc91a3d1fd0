import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from open_crema import config
from open_crema.config import Config
from open_crema.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_an_empty_file_is_the_defaults(write):
    assert config.load(write("")) == Config()


def test_values_reach_their_fields_as_the_schema_types_them(write):
    loaded = config.load(
        write("seed: 7\nmodel: {senses: [video, flow], lora: {rank: 64}}\ntrain: {lr: 1e-3}")
    )
    assert loaded.seed == 7
    assert loaded.model.senses == ("video", "flow")
    assert loaded.model.lora.rank == 64
    assert loaded.train.lr == 0.001  # YAML 1.1 reads 1e-3 as text
    assert loaded.model.qformer == Config().model.qformer


def test_a_config_survives_yaml_unchanged():
    changed = config.from_dict(
        {
            "name": "x: #y",
            "model": {"senses": ["point", "audio"], "lora": {"skip": ["audio"]}},
            "train": {"betas": [0.8, 0.9], "exit": {"enabled": True, "metric": "lora-l2"}},
            "data": {"train": None, "test": "a b.jsonl", "limits": {"seconds": 1.5}},
        }
    )
    assert changed != Config()
    assert config.from_dict(yaml.safe_load(config.to_yaml(changed))) == changed
    assert config.from_dict(config.to_dict(Config())) == Config()


@given(
    rank=st.integers(1, 10**6),
    lr=st.floats(min_value=1e-12, max_value=1e6),
    name=st.text(st.characters(codec="utf-8", exclude_categories=("Cs",))),
    enabled=st.booleans(),
)
def test_round_trip_of_any_value(rank, lr, name, enabled):
    made = config.from_dict(
        {
            "name": name,
            "model": {"lora": {"rank": rank}},
            "train": {"lr": lr, "exit": {"enabled": enabled}},
        }
    )
    assert (made.name, made.model.lora.rank, made.train.lr) == (name, rank, lr)
    assert config.from_dict(yaml.safe_load(config.to_yaml(made))) == made


def test_plain_data_holds_no_tuples_or_objects():
    def check(value):
        if isinstance(value, dict):
            assert all(isinstance(key, str) for key in value)
            value = list(value.values())
        if isinstance(value, list):
            for item in value:
                check(item)
        else:
            assert value is None or isinstance(value, bool | int | float | str)

    check(config.to_dict(Config()))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {epoch: 3}", "unknown key 'train.epoch', did you mean 'train.epochs'?"),
        ("trian: {epochs: 3}", "unknown key 'trian', did you mean 'train'?"),
        ("epochs: 3", "unknown key 'epochs', did you mean 'train.epochs'?"),
        ("train: {exit: {temprature: 1}}", "did you mean 'train.exit.temperature'?"),
        ("model: {lora: {rnak: 1}}", "did you mean 'model.lora.rank'?"),
        ("train: {epochs: 3.5}", "train.epochs: input should be a valid integer"),
        ("train: {batch_size: 0}", "train.batch_size: input should be greater than or equal to 1"),
        ("train: {lr: 0}", "train.lr: input should be greater than 0"),
        ("train: {strategy: both}", "train.strategy: input should be 'sequential' or 'joint'"),
        ("train: []", "train: input should be a dictionary"),
        ("train:", "train: input should be a dictionary"),
        ("model: {senses: video}", "model.senses: input should be a valid tuple"),
        ("model: {lora: {dropout: 1.0}}", "model.lora.dropout: input should be less than 1"),
        ("1: 2", "keys should be strings"),
        ("[1, 2]", "expected keys and values, found list"),
        ("a: [", "not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_what_does_not_fit_is_named_with_file_and_key(write, text, said):
    path = write(text)
    with pytest.raises(ConfigError) as error:
        config.load(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_every_wrong_key_is_named_at_once(write):
    with pytest.raises(ConfigError, match=r"train\.epoch'.*model\.lmm'|model\.lmm'.*train\.epoch'"):
        config.load(write("train: {epoch: 3}\nmodel: {lmm: x}"))


@pytest.mark.parametrize(
    ("senses", "said"),
    [("[]", "is empty"), ("[video, video]", "twice"), ("[vidoe]", "did you mean 'video'")],
)
def test_senses_are_checked(write, senses, said):
    with pytest.raises(ConfigError, match=said):
        config.load(write(f"model: {{senses: {senses}}}"))


def test_senses_that_skip_lora_are_checked(write):
    with pytest.raises(ConfigError, match="did you mean 'flow'"):
        config.load(write("model: {lora: {skip: [flwo]}}"))


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match="no such configuration file"):
        config.load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    with pytest.raises(ConfigError, match="cannot be read as text"):
        config.load(tmp_path / "latin.yaml")


def test_overrides_lie_over_overlays_over_the_file(write):
    base = write("seed: 1\ntrain: {epochs: 1, lr: 0.1, clip: 1.0}", "a.yaml")
    overlay = write("train: {epochs: 2, lr: 0.2}", "b.yaml")
    second = write("train: {batch_size: 4}", "c.yaml")
    loaded = config.load(base, ["train.epochs=3"], overlays=[overlay, second])
    assert (loaded.train.epochs, loaded.train.lr, loaded.train.clip) == (3, 0.2, 1.0)
    assert (loaded.seed, loaded.train.batch_size) == (1, 4)


@pytest.mark.parametrize(
    ("override", "get", "value"),
    [
        ("seed=3", lambda c: c.seed, 3),
        ("--seed=3", lambda c: c.seed, 3),
        ("train.exit.enabled=true", lambda c: c.train.exit.enabled, True),
        ("model.senses=[flow, audio]", lambda c: c.model.senses, ("flow", "audio")),
        ("name=a=b", lambda c: c.name, "a=b"),
        ("data.train=", lambda c: c.data.train, None),
        ("data.train=null", lambda c: c.data.train, None),
        ("model={llm: other}", lambda c: c.model.llm, "other"),
        ("train.betas=[0.5,0.6]", lambda c: c.train.betas, (0.5, 0.6)),
    ],
)
def test_overrides(write, override, get, value):
    assert get(config.load(write("data: {train: x.jsonl}"), [override])) == value


def test_a_later_override_wins_and_siblings_stay(write):
    loaded = config.load(write("model: {llm: mine}"), ["model.lora.rank=2", "model.lora.rank=4"])
    assert (loaded.model.lora.rank, loaded.model.llm) == (4, "mine")


@pytest.mark.parametrize("override", ["seed", "=3", "name=[", "seed.x=3", "train=3", "a..b=1"])
def test_broken_overrides(write, override):
    with pytest.raises(ConfigError):
        config.load(write(""), [override])


def test_base_is_relative_to_the_file_that_names_it(write, tmp_path):
    (tmp_path / "sub").mkdir()
    write("seed: 1\ntrain: {epochs: 5, lr: 0.5}", "root.yaml")
    write("base: ../root.yaml\ntrain: {epochs: 6}", "sub/middle.yaml")
    loaded = config.load(write("base: sub/middle.yaml\nname: leaf", "leaf.yaml"))
    assert (loaded.seed, loaded.train.epochs, loaded.train.lr, loaded.name) == (1, 6, 0.5, "leaf")


def test_a_missing_base_is_named(write):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such"):
        config.load(write("base: nowhere.yaml"))


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 1  # type: ignore[misc]


def test_a_part_can_be_read_with_its_own_schema():
    lora = config.from_dict({"rank": 3}, schema=config.LoraConfig)
    assert lora == config.LoraConfig(rank=3)
    with pytest.raises(ConfigError, match="adapter: unknown key 'rnak', did you mean 'rank'"):
        config.from_dict({"rnak": 3}, where="adapter", schema=config.LoraConfig)


@pytest.mark.parametrize("base", ["run.yaml", "3", "[a.yaml]"])
def test_a_base_that_cannot_be(write, base):
    with pytest.raises(ConfigError, match="base"):
        config.load(write(f"base: {base}"))


@pytest.mark.parametrize(
    "text",
    [
        "train: {lr: .inf}",
        "train: {min_lr: .nan}",
        "train: {min_lr: -1.0}",
        "train: {clip: -1.0}",
        "train: {weight_decay: -1.0}",
        "train: {betas: [2.0, -1.0]}",
        "train: {epochs: true}",
        "train: {order: [video]}",
        "train: {scope: own}",
        "train: {sense_dropout: {keep: [vidoe]}}",
        "data: {frames: 9, store_frames: 8}",
        "model: {qformer: {width: 10, heads: 4}}",
        "seed: 1\nseed: 2",
        "seed: -1",
        "seed: 4294967296",
        "train: {lr: true}",
        "train: {exit: {temperature: .nan}}",
        "model: {lora: {rank: 1, 'rank': 2}}",
        "name: 2024-13-45",
        pytest.param("[" * 5000, id="deep"),
    ],
)
def test_values_that_make_no_sense(write, text):
    path = write(text)
    with pytest.raises(ConfigError) as error:
        config.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {zzz: 1}", r"unknown key 'train\.zzz'; train has strategy, order, .*, threads$"),
        ("zzz: 1", r"unknown key 'zzz'; the top level has name, seed, out, .*, eval$"),
        ("train: {exit: {qqq: 1}}", r"train\.exit has enabled, metric"),
        ("rank: 1", "did you mean 'model.lora.rank'"),
        ("model: {seed: 1}", "did you mean 'seed'"),
    ],
)
def test_only_a_key_that_is_near_is_suggested(write, text, said):
    with pytest.raises(ConfigError, match=said):
        config.load(write(text))


def test_bases_in_a_circle(write):
    write("base: b.yaml", "a.yaml")
    write("base: c.yaml", "b.yaml")
    with pytest.raises(ConfigError, match=r"b\.yaml: base: c\.yaml leads back"):
        config.load(write("base: a.yaml", "c.yaml"))


def test_a_merge_key_is_not_a_key_that_stands_twice(write):
    text = "train: &t {lr: 0.5, alignment: {<<: {lr: 0.25, epochs: 2}, epochs: 3}}"
    assert config.load(write(text)).train.alignment.epochs == 3


def test_an_error_in_an_override_names_the_override(write):
    with pytest.raises(ConfigError, match=r"run\.yaml \+ train\.lr=0: train\.lr: input"):
        config.load(write(""), ["train.lr=0"])
    with pytest.raises(ConfigError, match=r"name={a: 1, a: 2}"):
        config.load(write(""), ["name={a: 1, a: 2}"])


def test_an_error_about_senses_names_the_file(write):
    path = write("model: {senses: [vidoe]}")
    with pytest.raises(ConfigError) as error:
        config.load(path)
    assert str(path) in str(error.value)


def test_a_start_like_another_sense_needs_the_model_that_has_it():
    with pytest.raises(ConfigError, match=r"train\.like=video needs a trained model.*train\.init"):
        config.from_dict({"train": {"like": "video"}})
    made = config.from_dict({"train": {"like": "video", "init": "m"}})
    assert (made.train.like, made.train.init) == ("video", "m")


@pytest.mark.parametrize(
    "section",
    [
        {"train": {"questions": 0}},
        {"train": {"alignment": {"schedule": "linear"}}},
        {"model": {"qformer": {"init": "kaiming"}}},
        {"model": {"qformer": {"positions": "sine"}}},
        {"model": {"fusion": {"init": "zero"}}},
    ],
)
def test_what_is_no_way_to_start_or_to_ask(section):
    with pytest.raises(ConfigError):
        config.from_dict(section)
