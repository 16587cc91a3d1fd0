"""Studies of one sense: CREMA's adapter at several ranks, and what one would train instead of it.

Every way starts from the base with video alone, sees the same clips, is aligned as long and takes
as many steps through the frozen LLM; what changes the LLM itself, which alignment does not train,
takes steps for about as long instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from open_crema import config as configuration
from open_crema import experiment
from open_crema.config import Config
from open_crema.errors import ConfigError, CremaError
from open_crema.evaluation.run import evaluate
from open_crema.evaluation.subsets import BLIND, name_of
from open_crema.model.crema import Crema
from open_crema.model.files import from_pretrained
from open_crema.model.qformer import LoraLayer, QFormer
from open_crema.reproduce.bench import Bench
from open_crema.reproduce.table import Count, Table, spread
from open_crema.reproduce.training import VIDEO, config_of, lines, video_alone
from open_crema.senseqa.types import IN_TIME, needing
from open_crema.storage import read_json, replacing, write_json
from open_crema.training.loop import Trainer
from open_crema.training.text_tuning import TARGETS

SENSE = "audio"
SENSES = ("video", SENSE)
OWN = tuple(n for n in needing(SENSE, "video") if n not in IN_TIME)
_ALIGNED = ("train.alignment.epochs=30",)
_FOUND = "found.json"
_RATE = 8e-4  # of an update of the LLM, as text tuning goes on with


class Projector(nn.Module):
    """``[N, K, W] -> [N, Q, D]`` without a Q-Former: features are averaged to as many tokens as
    there are queries, in their order, and projected by one linear map."""

    def __init__(self, encoder_width: int, queries: int, llm_width: int) -> None:
        super().__init__()
        self.encoder_width, self.queries = encoder_width, queries
        self.fresh: Tensor
        self.register_buffer("fresh", torch.tensor(False))
        self.projection = nn.Linear(encoder_width, llm_width)

    def forward(self, qformer: QFormer, tokens: Tensor, mask: Tensor) -> Tensor:
        real = mask[:, :, None].to(self.projection.weight)
        sums = nn.functional.adaptive_avg_pool1d(
            (tokens.to(real) * real).transpose(1, 2), self.queries
        )
        shares = nn.functional.adaptive_avg_pool1d(real.transpose(1, 2), self.queries)
        pooled = (sums / shares.clamp(min=1e-6)).transpose(1, 2)
        projected: Tensor = self.projection(pooled)
        return projected


@dataclass(frozen=True)
class Way:
    """change: makes what is to be trained of a base with a new adapter, where nothing is trainable
    but that and its fusion block. of_llm: whether that is in the LLM."""

    name: str
    title: str
    change: Callable[[Crema], None]
    of_llm: bool = False


def _as_it_is(model: Crema) -> None:
    """CREMA's adapter, which starts as the video's."""


def _of_rank(rank: int) -> Callable[[Crema], None]:
    """Another LoRA, from nothing; all else starts as the video's, at every rank alike."""

    def change(model: Crema) -> None:
        config = replace(model.config, lora=replace(model.config.lora, rank=rank))
        new = model.adapter(SENSE)
        new.lora = nn.ModuleList(
            LoraLayer(config.qformer.width, config.lora) for _ in range(config.qformer.layers)
        )

    return change


def _own_qformer(model: Crema) -> None:
    """It starts as the base's with the video's LoRA."""
    model.adapter(SENSE).start_as(model.adapter("video"))
    model.adapter(SENSE).take_own(model.qformer)


def _projector(model: Crema) -> None:
    width, queries = model.adapter(SENSE).encoder_width, model.config.qformer.queries
    model.adapters[SENSE] = Projector(width, queries, model.backbone.width)


def _llm_lora(model: Crema) -> None:
    """Of the rank that comes nearest to the adapter's parameters; the adapter stays as it starts:
    the video's, behind a random input projection."""
    peft = _peft()
    budget = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model.requires_grad_(False)
    llm: Any = model.backbone.llm
    each = sum(
        sum(module.weight.shape)
        for name, module in llm.named_modules()
        if name.rpartition(".")[2] in TARGETS
    )
    rank = max(round(budget / each), 1)
    peft.get_peft_model(
        llm, peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(TARGETS))
    )


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise ConfigError(
            "the study `instead` needs the PEFT library: pip install 'open-crema[tune]'"
        ) from None
    return peft


ADAPTER = Way("adapter", "CREMA's adapter", _as_it_is)
RANKS = tuple(Way(f"rank-{rank}", f"rank {rank}", _of_rank(rank)) for rank in (2, 8, 32))
INSTEAD = (
    ADAPTER,
    Way("own-qformer", "a Q-Former of its own, all trained", _own_qformer),
    Way("projector", "a linear projector, no Q-Former", _projector),
    Way("llm-lora", "LoRA on the LLM, adapter untrained", _llm_lora, of_llm=True),
)


def rank(bench: Bench) -> Iterator[Table]:
    """The paper's Table 18."""
    yield _compare(bench, f"Rank of the adapter of {SENSE} (paper, Table 18)", RANKS)


def instead(bench: Bench) -> Iterator[Table]:
    """The adapter against what else could be trained."""
    _peft()  # is missed now, not after the other ways
    yield _compare(bench, f"Ways to add {SENSE} to the base", INSTEAD)


def _compare(bench: Bench, title: str, ways: Sequence[Way]) -> Table:
    rows = []
    for way in ways:
        found = [_measured(bench, way, seed) for seed in bench.seeds]
        first = found[0]
        rows.append(
            [
                way.title,
                spread([Count.of(one["types"], VIDEO) for one in found]),
                spread([Count.of(one["types"], OWN) for one in found]),
                f"{first['parameters']:,}",
                f"{first['aligned']} + {first['steps']}",
                f"{sum(one['seconds'] for one in found) / len(found):.0f}",
            ]
        )
    without = bench.scored("untrained-ways", [*VIDEO, *OWN], [(), ("video",)])
    for name in (BLIND, name_of(("video",))):
        own = without[name]["types"]
        rows.append([name, str(Count.of(own, VIDEO)), str(Count.of(own, OWN)), "", "", ""])
    count, other = (Count.of(without[BLIND]["types"], types) for types in (VIDEO, OWN))
    return Table(
        title,
        ["trained", "video types", f"types of {SENSE}", "parameters", "updates", "s"],
        rows,
        f"Given video and {SENSE}. Seeds {', '.join(map(str, bench.seeds))}; N {count.n} and "
        f"{other.n} a seed, chance {count.chance} and {other.chance}. One seed: 95 % Wilson "
        "interval; several: mean and standard deviation over seeds. updates: of the alignment, and "
        "through the LLM.",
    )


def _measured(bench: Bench, way: Way, seed: int) -> Mapping[str, Any]:
    """What was found, now or before: types (as in results.json), parameters that are trained,
    aligned and steps (numbers of updates), seconds of training, and of_llm, those of the steps."""
    place = bench.out / "ways" / f"{way.name}-{seed}"
    if not place.exists():
        found = _measure(bench, way, seed)
        with replacing(place) as folder:
            write_json(folder / _FOUND, found)
    return read_json(place / _FOUND, "delete its folder, and it is measured again")


def _measure(bench: Bench, way: Way, seed: int) -> dict[str, Any]:
    video = video_alone(bench)
    with TemporaryDirectory() as place:  # no other code could read the models of most ways
        config = config_of(bench, Path(place), video, seed, _ALIGNED, senses=SENSES)
        if way.of_llm:
            config = _for_as_long(config, _measured(bench, ADAPTER, seed))
        model = from_pretrained(video)
        torch.manual_seed(seed)  # loading may draw numbers
        model.add_sense(SENSE, like="video")
        if SENSE not in model.fusion.blocks or model.fusion.inside:
            raise ConfigError(
                f"{bench.base}: its fusion does not merge tokens of the LLM's; these studies need "
                "one that does, as self-gated"
            )
        model.requires_grad_(False)
        model.adapter(SENSE).fresh.fill_(False)
        model.adapter(SENSE).requires_grad_(True)
        model.fusion.blocks[SENSE].requires_grad_(True)
        way.change(model)
        model.config = replace(model.config, senses=config.model.senses)
        data = experiment.read_data(config, experiment.read_samples(config, "train"))
        begun = time.perf_counter()
        Trainer(model, config, data, place).run()
        seconds = time.perf_counter() - begun
        log, timing = lines(Path(place) / "log.jsonl"), lines(Path(place) / "timing.jsonl")
    asked = replace(bench.asking(f"ways-{way.name}", [*VIDEO, *OWN], 1), model=config.model)
    test = experiment.read_data(asked, experiment.read_samples(asked, "test"))
    found = evaluate(model, test, config=asked.eval, blind=False)
    if len(found.predictions) != found.expected:
        raise CremaError(f"{len(found.predictions)} of {found.expected} questions were scored")
    return {
        "types": {name: asdict(row) for name, row in found.types.items()},
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "aligned": sum(line["kind"] == "align" for line in log),
        "steps": sum(line["kind"] == "step" for line in log),
        "seconds": seconds,
        "of_llm": sum(line["seconds"] for line in timing),
    }


def _for_as_long(config: Config, adapter: Mapping[str, Any]) -> Config:
    """Without alignment, and with as many steps more as the adapter's alignment took time for."""
    epochs = round(config.train.epochs * adapter["seconds"] / adapter["of_llm"])
    return configuration.override(
        config, [f"train.epochs={epochs}", f"train.lr={_RATE}", "train.alignment.epochs=0"]
    )
