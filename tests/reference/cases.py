"""What `reference.generate` writes: the forward cases and the training traces."""

from dataclasses import dataclass
from typing import Any

from reference.trace import Schedule


@dataclass(frozen=True)
class Case:
    """One forward pass with gradients and answers.

    `suffix` tells apart cases of one modality set and task. `end_at` makes the end token win
    wherever the greedy token of that step would have won, so that answers end early.
    """

    modalities: str
    task: str
    frames: int = 4
    batch: int = 2
    suffix: str = ""
    end_at: int | None = None
    long_text: bool = False
    width: int = 36
    layers: int = 2

    @property
    def name(self) -> str:
        return f"{self.modalities}__{self.task}{self.suffix}"


@dataclass(frozen=True)
class TraceCase:
    """One training run over `iters` mini-batches, the same ones every epoch.

    `exits` modalities meet the exit rule, which only sequential training obeys.
    """

    name: str
    modalities: str
    task: str
    iters: int
    schedule: Schedule
    batch: int = 2
    frames: int = 4
    exits: int = 0


CASES = (
    Case("rgb", "concat"),
    Case("rgb", "concat", frames=1, batch=1, suffix="__end_first", end_at=1),
    Case("rgb", "concat", frames=3, batch=3, suffix="__end_third", end_at=3),
    Case("rgb-skip", "concat", frames=3, batch=1),
    # Single senses and rgb + pc crash in the official code at batch size 1, so none is here.
    Case("audio", "concat", batch=3),
    Case("pc", "concat", width=40),
    Case("rgb_audio", "concat", batch=3, end_at=4),
    Case("rgb_pc", "concat", frames=3, width=40),
    Case("rgb_pc", "concat", frames=1, batch=3, suffix="__t1"),
    Case("rgb_flow", "concat", batch=1, long_text=True),
    Case("rgb_audio_pc", "concat"),
    Case("rgb_pc_depth", "concat"),
    Case("audio_rgb_depth", "concat", frames=3),
    Case("rgb_flow_depth_norm", "concat"),
    Case("rgb_flow_depth_norm", "espresso", frames=3, batch=3),
    Case("rgb_flow_depth_norm", "espresso-concat", batch=1),
    Case("rgb_flow_depth_norm", "espresso-concat", frames=1, suffix="__t1"),
    Case("rgb_flow", "espresso"),
    Case("rgb_audio", "espresso-concat", frames=1, batch=1),
    Case("rgb_audio_flow", "espresso-concat", layers=3),
    Case("rgb_audio_pc", "espresso-concat", frames=3),
    Case("rgb_pc_depth_norm", "espresso", width=40),
    Case("rgb-skip_flow_depth", "espresso-concat", end_at=2),
    Case("rgb_audio-skip_pc-skip", "espresso", batch=1),
    Case("rgb_norm_depth_flow", "espresso-concat"),
    Case("audio_rgb_depth", "espresso-concat", frames=3, batch=3),
    Case("rgb_depth_norm", "espresso-concat-seq-gradsel-es"),
)

TRACES = (
    TraceCase("seq_sgd", "rgb_flow_audio", "espresso-concat-seq", 2, Schedule(2, "sgd", 0.1)),
    TraceCase("seq_concat_sgd", "rgb_audio", "concat-seq", 2, Schedule(2, "sgd", 0.1), frames=3),
    TraceCase("seq_adamw", "pc_rgb_norm", "espresso-seq", 2, Schedule(2, "adamw", 0.003)),
    TraceCase(
        "seq_skip_adamw",
        "rgb-skip_flow_depth",
        "espresso-concat-seq",
        2,
        Schedule(2, "adamw", 0.003),
        batch=1,
    ),
    TraceCase(
        "es_adamw",
        "rgb_audio_flow_pc",
        "espresso-concat-seq-gradsel-es",
        2,
        Schedule(9, "adamw", 0.003, es_temperature=0.9),
        frames=3,
        exits=2,
    ),
    TraceCase(
        "es_all_sgd",
        "rgb_depth",
        "espresso-concat-seq-gradsel-es",
        1,
        Schedule(7, "sgd", 0.05, es_temperature=0.1),
        frames=1,
        exits=2,
    ),
    TraceCase("joint_adamw", "rgb_pc_depth_norm", "espresso", 3, Schedule(2, "adamw", 0.003)),
    TraceCase("joint_concat_sgd", "rgb_pc", "concat", 2, Schedule(2, "sgd", 0.1), frames=3),
    TraceCase(
        "joint_es_sgd",
        "rgb_flow_audio",
        "espresso-concat-gradsel-es",
        2,
        Schedule(7, "sgd", 0.1, es_temperature=0.8),
        frames=3,
        exits=2,
    ),
)


def make_size(frames: int, width: int = 36, layers: int = 2) -> dict[str, Any]:
    """The `size` record. `vit` and `beats` only describe the raw features; no weights follow."""
    return {
        "vit": {"img_size": 28, "patch_size": 14, "embed_dim": width},
        "width": width,
        "qf": {
            "hidden_size": 24,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "intermediate_size": 40,
            "vocab_size": 40,
            "max_position_embeddings": 16,
        },
        "t5": {
            "vocab_size": 320,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "num_heads": 4,
            "relative_attention_num_buckets": 32,
            "relative_attention_max_distance": 128,
            "initializer_factor": 0.2,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
        },
        "beats": {"encoder_embed_dim": 20},
        "num_query": 4,
        "rank": 2,
        "frames": frames,
    }
