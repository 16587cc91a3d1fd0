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
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked
from pydantic_core import PydanticCustomError

from open_crema import modality
from open_crema.errors import ConfigError

_FORBID = ConfigDict(extra="forbid", allow_inf_nan=False)


def _number(value: Any) -> Any:
    if isinstance(value, bool):  # to Python True is 1
        raise PydanticCustomError("number", "input should be a number, not true or false")
    return value


_Integer = Annotated[int, BeforeValidator(_number)]
_Float = Annotated[float, BeforeValidator(_number)]
Count = Annotated[_Integer, Field(ge=1)]
Whole = Annotated[_Integer, Field(ge=0)]
Positive = Annotated[_Float, Field(gt=0)]
NotNegative = Annotated[_Float, Field(ge=0)]
Share = Annotated[_Float, Field(ge=0, lt=1)]
Seed = Annotated[_Integer, Field(ge=0, lt=2**32)]


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

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError(
                f"model.qformer.width {self.width} is not a multiple of its heads ({self.heads})"
            )


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

    def __post_init__(self) -> None:
        if self.frames > self.store_frames:
            raise ConfigError(
                f"data.frames {self.frames} is more than data.store_frames {self.store_frames}, "
                "of which they are drawn: lower the one or raise the other"
            )


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
    temperature: Positive = 0.05
    mse_weight: NotNegative = 0.1


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
    min_lr: NotNegative = 0.0
    warmup_steps: Whole = 100
    # "cosine": every step, over the whole run; "epoch-cosine": the released code's, constant
    # inside an epoch, warm-up in the first one only; "constant".
    schedule: Literal["cosine", "epoch-cosine", "constant"] = "cosine"
    weight_decay: NotNegative = 0.05
    betas: tuple[Share, Share] = (0.9, 0.999)
    clip: NotNegative = 0.0  # largest gradient norm; 0: none, as published
    precision: Literal["fp32", "bf16"] = "fp32"
    exit: ExitConfig = field(default_factory=ExitConfig)
    alignment: AlignmentStageConfig = field(default_factory=AlignmentStageConfig)
    validate_every: Count = 1  # epochs
    checkpoint_every: Whole = 0  # steps; 0: at the end of each epoch only
    threads: Whole = 0  # 0: torch's default

    def __post_init__(self) -> None:
        if len(set(self.order)) != len(self.order):
            raise ConfigError(f"train.order names a sense twice: {', '.join(self.order)}")
        for sense in self.order:
            modality.get(sense)


@checked(frozen=True, config=_FORBID)
class EvalConfig:
    batch_size: Count = 32
    max_new_tokens: Count = 10
    beams: Count = 1
    length_penalty: float = 1.0  # of beam search; the released code has -1


@checked(frozen=True, config=_FORBID)
class Config:
    """One run: one YAML file, one row of a table."""

    name: str = "crema"
    seed: Seed = 0
    out: str = "out"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)


def from_dict(data: Mapping[str, Any], *, where: str = "config", schema: type[Any] = Config) -> Any:
    """A configuration object from plain data.

    Raises ConfigError with ``where`` and the full key of each unknown or ill-typed value; for an
    unknown key, the nearest valid one.
    """
    try:
        return TypeAdapter(schema).validate_python(dict(data))
    except ValidationError as error:
        lines = [_explain(e["loc"], e["msg"], e["type"], schema) for e in error.errors()]
        raise ConfigError(f"{where}: " + "; ".join(lines)) from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _explain(location: tuple[int | str, ...], message: str, kind: str, schema: type[Any]) -> str:
    key = ".".join(str(part) for part in location)
    if kind not in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{key}: {message[:1].lower()}{message[1:]}"
    section, _, name = key.rpartition(".")
    valid = [k.rpartition(".") for k in sorted(_keys(schema), key=lambda k: k.count("."))]
    beside = [last for above, _, last in valid if above == section]
    near = [(above, last) for above, _, last in valid if last == name]
    near += [(section, last) for last in difflib.get_close_matches(name, beside, n=1)]
    if near:
        return f"unknown key {key!r}, did you mean {'.'.join(near[0]).lstrip('.')!r}?"
    return f"unknown key {key!r}; {section or 'the top level'} has {', '.join(beside)}"


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
    where = " + ".join(str(source) for source in (path, *overlays, *overrides))
    config: Config = from_dict(data, where=where)
    return config


def override(config: Config, overrides: Sequence[str]) -> Config:
    """The configuration with ``a.b=value`` overrides laid over it."""
    data = to_dict(config)
    for text in overrides:
        data = _merge(data, _parse_override(text))
    changed: Config = from_dict(data, where=" + ".join(["overrides", *overrides]))
    return changed


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, where YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


# A nesting too deep, and scalars that look like a date or a number but are none.
_NOT_YAML = (yaml.YAMLError, RecursionError, ValueError)


def _read_yaml(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """above: the files whose ``base`` led here."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        named = f", which {above[-1]} names as its base" if above else ""
        raise ConfigError(f"{path}: no such configuration file{named}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error})") from None
    try:
        data = yaml.load(text, _Loader)
    except _NOT_YAML as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(data).__name__}")
    base = data.pop("base", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: expected the path of a YAML file, found {base!r}")
    above = (*above, path.resolve())
    if (path.parent / base).resolve() in above:
        raise ConfigError(f"{path}: base: {base} leads back to itself")
    return _merge(_read_yaml(path.parent / base, above), data)


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.lstrip("-").partition("=")
    if not equals or not key:
        raise ConfigError(f"override {text!r}: write key=value, as in train.epochs=3")
    try:
        parsed: Any = yaml.load(value, _Loader) if value else None
    except _NOT_YAML:
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
