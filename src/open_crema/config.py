"""The only configuration schema: frozen dataclasses, YAML in and out, overridable by ``key=value``.

Each value that the paper, the released code and this project handle differently has a name here;
``docs/differences.md`` lists them all in one table. Defaults are the embedded scale and, where the
paper's text and the released code differ, the paper's text; ``configs/reference.yaml`` is the
overlay that gives the released code's behaviour.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from open_crema import modality
from open_crema.errors import ConfigError

_FORBID = ConfigDict(extra="forbid")
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


@checked(frozen=True, config=_FORBID)
class QFormerConfig:
    """The shared Q-Former (paper 3.1). Full size: 12 layers, width 768, 12 heads, ffn 3072."""

    layers: Count = 4
    width: Count = 256
    heads: Count = 4
    ffn: Count = 1024
    queries: Count = 8
    encoder_width: Count = 384  # width of what it attends to; other encoders are projected to it
    cross_every: Count = 2  # cross-attention in layers 0, 2, 4, ...
    dropout: Share = 0.1


@checked(frozen=True, config=_FORBID)
class LoraConfig:
    """Low-rank adapters on the query and value projections of self-attention (paper eq. 1, 2)."""

    rank: Count = 16
    dropout: Share = 0.1
    skip: tuple[str, ...] = ()  # senses that use the Q-Former without LoRA (zero-shot video)


@checked(frozen=True, config=_FORBID)
class FusionConfig:
    """How assisting senses reach the LLM (paper eq. 3)."""

    kind: Literal["self-gated", "concat"] = "self-gated"
    # "append": the gated tokens follow the primary sense's; "add": they are added to them.
    placement: Literal["append", "add"] = "append"


@checked(frozen=True, config=_FORBID)
class PromptConfig:
    layout: Literal["packed", "reference"] = "packed"
    max_text_tokens: Count = 512
    # A longer text is an error by default; the released code cuts its end, the instruction.
    overflow: Literal["error", "truncate"] = "error"


@checked(frozen=True, config=_FORBID)
class AlignConfig:
    """How audio windows meet video frames: by overlap in time, or the mean of all windows."""

    audio: Literal["overlap", "mean"] = "overlap"


@checked(frozen=True, config=_FORBID)
class EncodersConfig:
    """Which frozen encoder serves each kind of sense (``crema doctor`` lists them)."""

    vision: str = "dinov2-small"
    audio: str = "yamnet"
    point: str = "points"
    resolution: Count = 112  # vision, pixels a side
    audio_window: Positive = 5.0  # seconds
    audio_max_windows: Count = 12
    max_points: Count = 5000


@checked(frozen=True, config=_FORBID)
class ModelConfig:
    senses: tuple[str, ...] = ("video", "audio")
    llm: str = "smollm2-135m-instruct"
    llm_dropout: Share = 0.0
    encoders: EncodersConfig = field(default_factory=EncodersConfig)
    qformer: QFormerConfig = field(default_factory=QFormerConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    align: AlignConfig = field(default_factory=AlignConfig)

    def __post_init__(self) -> None:
        if not self.senses:
            raise ConfigError("model.senses is empty: name at least one, as in [video, audio]")
        if len(set(self.senses)) != len(self.senses):
            raise ConfigError(f"model.senses names a sense twice: {', '.join(self.senses)}")
        for sense in (*self.senses, *self.lora.skip):
            modality.get(sense)


@checked(frozen=True, config=_FORBID)
class LimitsConfig:
    """Media larger than this is refused with an error that names the limit."""

    bytes: Count = 4 * 2**30
    seconds: Positive = 3600.0
    pixels: Count = 64_000_000


@checked(frozen=True, config=_FORBID)
class DataConfig:
    task: str = "jsonl"
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    media_root: str | None = None  # where relative paths start; default: the data file's folder
    store: str | None = None  # feature store; default: a folder in the cache
    store_frames: Count = 8  # frames a clip in the store, of which a sample uses `frames`
    frames: Count = 4
    limits: LimitsConfig = field(default_factory=LimitsConfig)


@checked(frozen=True, config=_FORBID)
class ExitConfig:
    """Modality-adaptive early exit (paper 3.3): stop training a sense whose gradient grows again.

    A sense exits after epoch j when g[j] > temperature * mean(g[:j]).
    """

    enabled: bool = False
    # "mmqa-mean-abs": mean |gradient| over the sense's whole adapter (the paper's text);
    # "lora-l2": L2 norm over its LoRA matrices only (the released code).
    metric: Literal["mmqa-mean-abs", "lora-l2"] = "mmqa-mean-abs"
    # An epoch's value: the mean over its steps (the paper), or its last step's (released code).
    history: Literal["epoch-mean", "last-step"] = "epoch-mean"
    temperature: Positive = 1.4
    first_epoch: Whole = 1  # the first epoch (from 0) whose end may exit; the released code has 5
    # Whether the epochs before first_epoch enter the mean that later ones are compared with.
    warmup: Literal["counted", "excluded"] = "counted"
    # In joint training the released code computes the exits and never uses them.
    joint: Literal["freeze", "observe"] = "freeze"


@checked(frozen=True, config=_FORBID)
class AlignmentStageConfig:
    """Alignment of query tokens with the LLM's embedding rows, before training through the LLM."""

    epochs: Whole = 0
    lr: Positive = 1e-3
    batch_size: Count = 32
    random_rows: Whole = 512  # other rows of the embedding matrix that the words compete with
    temperature: Positive = 0.1
    mse_weight: float = 1.0


@checked(frozen=True, config=_FORBID)
class TrainConfig:
    strategy: Literal["sequential", "joint"] = "sequential"
    order: tuple[str, ...] = ()  # sub-step order; default: as listed in model.senses
    # When the shared Q-Former is trained: never (the paper's is pre-trained), in the alignment
    # stage only, or always, which needs strategy=joint.
    qformer: Literal["frozen", "alignment", "always"] = "frozen"
    init: str | None = None  # a saved model to start from
    epochs: Whole = 10
    batch_size: Count = 16
    accumulate: Count = 1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: Positive = 2e-4
    min_lr: float = 0.0
    warmup_steps: Whole = 100
    # "cosine": every step, over the whole run; "epoch-cosine": the released code's, constant
    # inside an epoch, warm-up in the first one only; "constant".
    schedule: Literal["cosine", "epoch-cosine", "constant"] = "cosine"
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 0.0  # largest gradient norm; 0: none, as published
    precision: Literal["fp32", "bf16"] = "fp32"
    exit: ExitConfig = field(default_factory=ExitConfig)
    alignment: AlignmentStageConfig = field(default_factory=AlignmentStageConfig)
    validate_every: Count = 1  # epochs
    threads: Whole = 0  # 0: torch's default


@checked(frozen=True, config=_FORBID)
class EvalConfig:
    batch_size: Count = 32
    max_new_tokens: Count = 10
    beams: Count = 1


@checked(frozen=True, config=_FORBID)
class Config:
    """One run: one YAML file, one row of a table."""

    name: str = "crema"
    seed: int = 0
    out: str = "out"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)


def from_dict(data: Mapping[str, Any], *, where: str = "config", schema: type[Any] = Config) -> Any:
    """A configuration object from plain data.

    Raises ConfigError with the full key of each unknown or ill-typed value; for an unknown key,
    the nearest valid one.
    """
    try:
        return TypeAdapter(schema).validate_python(dict(data))
    except ValidationError as error:
        lines = [_explain(e["loc"], e["msg"], e["type"], schema) for e in error.errors()]
        raise ConfigError(f"{where}: " + "; ".join(lines)) from None


def _explain(location: tuple[int | str, ...], message: str, kind: str, schema: type[Any]) -> str:
    key = ".".join(str(part) for part in location)
    if kind not in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{key}: {message[:1].lower()}{message[1:]}"
    valid = _keys(schema)
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.0)
    siblings = [k for k in valid if k.rpartition(".")[0] == key.rpartition(".")[0]]
    near = difflib.get_close_matches(key, siblings, n=1, cutoff=0.6) or near
    return f"unknown key {key!r}, did you mean {near[0]!r}?"


def _keys(schema: type[Any], prefix: str = "") -> list[str]:
    keys = []
    for f in dataclasses.fields(schema):
        keys.append(prefix + f.name)
        default = f.default_factory
        if isinstance(default, type) and dataclasses.is_dataclass(default):
            keys += _keys(default, f"{prefix}{f.name}.")
    return keys


def to_dict(config: Any) -> dict[str, Any]:
    """Plain data (lists, dicts, scalars) that :func:`from_dict` gives back unchanged."""
    plain: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return plain


def to_yaml(config: Any) -> str:
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def load(
    path: str | Path, overrides: Sequence[str] = (), *, overlays: Sequence[Path] = ()
) -> Config:
    """Reads a YAML file, lays overlays and then ``a.b=value`` overrides over it.

    A file may start from another by ``base: other.yaml`` (relative to itself).
    Raises ConfigError for a missing or broken file and for whatever does not fit the schema.
    """
    data = _read_yaml(Path(path))
    for overlay in overlays:
        data = _merge(data, _read_yaml(overlay))
    for override in overrides:
        data = _merge(data, _parse_override(override))
    config: Config = from_dict(data, where=str(path))
    return config


def override(config: Config, overrides: Sequence[str]) -> Config:
    """The configuration with ``a.b=value`` overrides laid over it."""
    data = to_dict(config)
    for text in overrides:
        data = _merge(data, _parse_override(text))
    changed: Config = from_dict(data, where="overrides")
    return changed


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(data).__name__}")
    base = data.pop("base", None)
    return _merge(_read_yaml(path.parent / base), data) if base else data


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.lstrip("-").partition("=")
    if not equals or not key:
        raise ConfigError(f"override {text!r}: write key=value, as in train.epochs=3")
    try:
        parsed: Any = yaml.safe_load(value) if value else None
    except yaml.YAMLError:
        raise ConfigError(f"override {text!r}: {value!r} is not a YAML value") from None
    for part in reversed(key.split(".")):
        parsed = {part: parsed}
    return dict(parsed)


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(below, value) if both else value  # type: ignore[arg-type]
    return merged
