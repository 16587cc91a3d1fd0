"""The only configuration schema: frozen dataclasses.

Each value that the paper, the released code and this project handle differently has a name here;
``docs/differences.md`` lists them all in one table. Defaults are the embedded scale and, where the
paper's text and the released code differ, the paper's text; ``configs/reference.yaml`` is the
overlay that gives the released code's behaviour.
"""

from __future__ import annotations

from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
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
Options = Annotated[dict[str, str], BeforeValidator(lambda given: given or {})]
Dtype = Literal["fp32", "bf16", "fp16"]
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
    # "bert": normal, 0.02; "xavier": by fan-in and fan-out, sharper where queries meet keys and
    # flatter where a layer adds to what it was given: learns faster from scratch at small sizes.
    init: Literal["bert", "xavier"] = "bert"
    # "each": every sense has one of its own, all of it trained, and no LoRA: the paper's baselines
    # (BLIP-2, 3D-LLM). "shared": one frozen one and an adapter a sense, the paper's method.
    own: Literal["shared", "each"] = "shared"
    # "grid": a fixed code of row and column is added to the features of pictures.
    positions: Literal["none", "grid"] = "none"

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
    """How assisting senses reach the LLM (paper eq. 3, and the others of Table 7)."""

    kind: Literal[
        "self-gated", "concat", "ungated", "linear", "mixture-of-experts", "cross-attention"
    ] = "self-gated"
    # "append": the fused tokens follow the primary sense's; "add": they are added to them.
    placement: Literal["append", "add"] = "append"
    # How the blocks start: "fan-in", nn.Linear's (the released code); "identity", so that senses
    # begin as themselves, without a bias: self-gated with twice the identity, where silu(2 x) is
    # nearly x; ungated, linear with the identity; mixture-of-experts with experts that add nothing
    # to what they are given; cross-attention with the identity for its values and output.
    init: Literal["fan-in", "identity"] = "fan-in"


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

    # "eva-vit-g" comes from the hub; any other vision model is a local folder.
    vision: str = "dinov2-small"
    audio: str = "yamnet"
    point: str = "points"
    resolution: Count = 112  # vision, pixels a side
    audio_window: Positive = 5.0  # seconds
    audio_max_windows: Count = 12
    # BEATs: "whole" covers the track; "start" is the released code's, so many windows from its
    # start, silent or not, of which none is masked.
    audio_windows: Literal["whole", "start"] = "whole"
    max_points: Count = 5000  # of a cloud that a sample uses
    # Which of a larger cloud's: "even", evenly spaced rows, always the same; "drawn", others each
    # time that a sample is trained on, of the `stored_points` that are kept; "reference" is the
    # released code's: drawn in evaluation too, and a smaller cloud filled with zeros, not masked.
    point_choice: Literal["even", "drawn", "reference"] = "even"
    stored_points: Count = 20_000  # kept of a cloud, evenly spaced, where they are drawn
    voxel: Positive = 0.1  # metres: features of points in one voxel are averaged
    # Of the code of a point's voxel beside its features; 0.01 is the paper's.
    position_scale: Positive = 0.01
    cloud_views: Count = 6  # from how many sides a point cloud without pictures is looked at
    # Of the weights of the vision encoder and of BEATs; features are kept as bf16 anyway.
    dtype: Dtype = "fp32"
    device: str = "cpu"  # of the same, as "cuda" or "cuda:1"

    def __post_init__(self) -> None:
        if self.point_choice != "even" and self.stored_points < self.max_points:
            raise ConfigError(
                f"model.encoders.stored_points {self.stored_points} is less than "
                f"model.encoders.max_points {self.max_points}, which are drawn of them: raise the "
                "one or lower the other"
            )


@checked(frozen=True, config=_FORBID)
class LoadingConfig:
    """How the frozen LLM is held in memory: what a machine has, no part of what the model is.

    So a run that starts from, or evaluates, a saved model may say it anew, as it may
    ``model.encoders.dtype`` and ``.device``. The adapters, the Q-Former and the fusion are always
    fp32, on the device where the LLM embeds its prompt.
    """

    dtype: Dtype = "fp32"
    # null: the CPU. A device, as "cuda" or "cuda:1", or layers over all GPUs and the CPU as
    # accelerate spreads them: "auto", "balanced", "balanced_low_0", "sequential".
    device_map: str | None = None
    # By bitsandbytes, the extra `quantised`: "int8" is LLM.int8(), "nf4" QLoRA's four bits. What
    # is not quantised, and the sums, are in dtype.
    quantised: Literal["none", "int8", "nf4"] = "none"


@checked(frozen=True, config=_FORBID)
class ModelConfig:
    senses: tuple[str, ...] = ("video", "audio")
    llm: str = "smollm2-135m-instruct"
    llm_dropout: Share = 0.0
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    encoders: EncodersConfig = field(default_factory=EncodersConfig)
    qformer: QFormerConfig = field(default_factory=QFormerConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    # Senses whose adapters have a linear layer before the Q-Former although their features are as
    # wide as what it reads; where they are not, it is there in any case (paper 3.2). It starts as
    # the identity. A frozen Q-Former knows the features of pictures, not of maps.
    input_projection: tuple[str, ...] = ()
    fusion: FusionConfig = field(default_factory=FusionConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    align: AlignConfig = field(default_factory=AlignConfig)

    def __post_init__(self) -> None:
        if not self.senses:
            raise ConfigError("model.senses is empty: name at least one, as in [video, audio]")
        if len(set(self.senses)) != len(self.senses):
            raise ConfigError(f"model.senses names a sense twice: {', '.join(self.senses)}")
        for sense in (*self.senses, *self.lora.skip, *self.input_projection):
            modality.get(sense)

    def projecting(self, sense: str, whether: bool) -> ModelConfig:
        """The same with or without an ``input_projection`` of that sense."""
        others = tuple(s for s in self.input_projection if s != sense)
        return replace(self, input_projection=(*others, sense) if whether else others)

    def held_as(self, other: ModelConfig) -> ModelConfig:
        """The same model with its frozen parts in memory as the other has them, and with the
        other's dropout of the LLM, which is training's."""
        dtype, device = other.encoders.dtype, other.encoders.device
        encoders = replace(self.encoders, dtype=dtype, device=device)
        loading, dropout = other.loading, other.llm_dropout
        return replace(self, loading=loading, encoders=encoders, llm_dropout=dropout)


@checked(frozen=True, config=_FORBID)
class LimitsConfig:
    """Media larger than this is refused with an error that names the limit."""

    bytes: Count = 4 * 2**30
    seconds: Positive = 3600.0
    pixels: Count = 64_000_000
    points: Count = 10_000_000
    files: Count = 1_000_000  # of one folder


@checked(frozen=True, config=_FORBID)
class DataConfig:
    task: str = "jsonl"
    # Of the task, as {split: real} (docs/tasks.md); null: none, where a file below has some.
    options: Options = field(default_factory=dict)
    # Files, or the folder of a benchmark's files, of which each takes its own split.
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    media_root: str | None = None  # where relative paths start; default: the data file's folder
    store: str | None = None  # feature store; default: a folder in the cache
    store_frames: Count = 8  # frames a clip in the store, of which a sample uses `frames`
    frames: Count = 4
    # A file that cannot be used stops the run ("error"), leaves its sample out ("skip"), or leaves
    # its sense out of the sample ("mask"); the last two name and count it.
    on_error: Literal["error", "skip", "mask"] = "error"
    workers: Whole = 0  # threads that extract features; 0: as many as there are cores
    limits: LimitsConfig = field(default_factory=LimitsConfig)

    def __post_init__(self) -> None:
        self._check_held_out()
        if self.frames > self.store_frames:
            raise ConfigError(
                f"data.frames {self.frames} is more than data.store_frames {self.store_frames}, "
                "of which they are drawn: lower the one or raise the other"
            )

    def _check_held_out(self) -> None:
        """The released code's configurations choose the epoch by the test file itself."""
        if self.validation is None or self.test is None:
            return
        one, other = Path(self.validation).absolute(), Path(self.test).absolute()
        if one == other and (self.task == "jsonl" or not one.is_dir()):
            raise ConfigError(
                f"data.validation and data.test are the same file, {self.test}: a model that is "
                "chosen by the test answers has no test score; name another validation file, or "
                "none"
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
    schedule: Literal["constant", "cosine"] = "constant"  # "cosine": to 0 at its end
    warmup_steps: Whole = 0  # in which the rate rises to the schedule's
    batch_size: Count = 32
    random_rows: Whole = 512  # other rows of the embedding matrix that the words compete with
    temperature: Positive = 0.05
    mse_weight: NotNegative = 0.1
    # The squared error is to the word that a token is nearest to, not to the caption's: of several
    # that it may be it says one wholly, which the LLM can read, and not their mean.
    commit: bool = False
    # Above 0, training through the LLM adds this loss of each trained sense's captions with this
    # weight: tokens go on being words that the LLM can read.
    keep: NotNegative = 0.0


@checked(frozen=True, config=_FORBID)
class SenseDropoutConfig:
    """Senses withheld in training, so that every subset of them answers. No sample loses all.

    "random": each sense of each sample, on its own, with probability ``rate``. "structured": with
    probability ``rate`` a whole mini-batch (one optimizer step) is given one subset of the senses,
    each non-empty proper one that holds ``keep`` equally often. The alignment stage is given fewer
    senses too: a sense that leads where others are missing, and the fused tokens of those that are
    there, are to be words as much as those of the whole.
    """

    kind: Literal["none", "random", "structured"] = "none"
    rate: Share = 0.5
    keep: tuple[str, ...] = ()  # senses that are never withheld


@checked(frozen=True, config=_FORBID)
class TrainConfig:
    strategy: Literal["sequential", "joint"] = "sequential"
    # Sub-steps of sequential training: "fixed", as listed in model.senses; "shuffled", in an order
    # that is drawn anew for each mini-batch.
    order: Literal["fixed", "shuffled"] = "fixed"
    # "own": only the adapters and fusion blocks of senses that train.init does not have, or has
    # untrained, are trained, and nothing else moves.
    scope: Literal["all", "own"] = "all"
    sense_dropout: SenseDropoutConfig = field(default_factory=SenseDropoutConfig)
    # When the shared Q-Former is trained: never (the paper's is pre-trained), in the alignment
    # stage only, or always, which needs strategy=joint.
    qformer: Literal["frozen", "alignment", "always"] = "frozen"
    init: str | None = None  # a saved model to start from
    # The sense of that model as whose adapter new ones start, as far as their shapes agree, instead
    # of at random.
    like: str | None = None
    epochs: Whole = 10
    # Above 0, an epoch ends after no more than so many steps; the next one draws anew.
    epoch_steps: Whole = 0
    batch_size: Count = 16
    # Of those that the data hold about the same media, so many are asked in one step, behind one
    # run of the adapters; batch_size then counts media.
    questions: Count = 1
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
    saved: Literal["fp32", "bf16"] = "fp32"  # the model's files; checkpoints are always exact
    exit: ExitConfig = field(default_factory=ExitConfig)
    alignment: AlignmentStageConfig = field(default_factory=AlignmentStageConfig)
    validate_every: Count = 1  # epochs
    checkpoint_every: Whole = 0  # steps; 0: at the end of each epoch only
    threads: Whole = 0  # 0: torch's default

    def __post_init__(self) -> None:
        if self.qformer == "always" and self.strategy != "joint":
            raise ConfigError("train.qformer=always needs train.strategy=joint")
        if self.scope == "own" and self.init is None:
            raise ConfigError(
                "train.scope=own adds senses to a trained model: name its folder as train.init"
            )
        if self.like is not None and self.init is None:
            raise ConfigError(
                f"train.like={self.like} needs a trained model that has it: name its folder as "
                "train.init"
            )
        if self.scope == "own" and self.qformer != "frozen":
            raise ConfigError(
                f"train.scope=own moves nothing that others share: train.qformer={self.qformer} "
                "goes with train.scope=all"
            )
        for sense in self.sense_dropout.keep:
            modality.get(sense)


@checked(frozen=True, config=_FORBID)
class EvalConfig:
    batch_size: Count = 32
    max_new_tokens: Count = 10
    beams: Count = 1
    length_penalty: float = 1.0  # of beam search; the released code has -1
    on_error: Literal["error", "skip", "mask"] = "skip"  # as data.on_error, for evaluation
    # Senses that were added and that no training has used: left out, so that adding one changes
    # nothing, or used as they start (the paper's Table 17, "w/o PT").
    untrained: Literal["leave-out", "use"] = "leave-out"


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

    def __post_init__(self) -> None:
        if self.model.qformer.own == "each" and self.train.qformer != "frozen":
            raise ConfigError(
                f"train.qformer={self.train.qformer} trains the Q-Former that senses share; under "
                "model.qformer.own=each every sense's own is trained: use frozen"
            )
