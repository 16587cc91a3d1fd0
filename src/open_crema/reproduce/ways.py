"""Studies of one sense: CREMA's adapter at several ranks, and what one would train instead of it.

Every way starts from the base with video alone, sees the same clips, is aligned as long and takes
as many steps through the frozen LLM; what changes the LLM itself, which alignment does not train,
takes as many seconds instead.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from open_crema import experiment, modality, progress
from open_crema.config import Config
from open_crema.data.dataset import FeatureDataset
from open_crema.data.sample import Batch
from open_crema.errors import ConfigError, CremaError
from open_crema.evaluation.run import evaluate
from open_crema.evaluation.subsets import BLIND, name_of
from open_crema.model.adapter import Adapter
from open_crema.model.crema import Crema
from open_crema.model.files import from_pretrained
from open_crema.model.qformer import LoraLayer, QFormer
from open_crema.reproduce.bench import Bench
from open_crema.reproduce.table import Count, Table
from open_crema.reproduce.training import VIDEO, config_of, spread, video_alone
from open_crema.senseqa.types import IN_TIME, needing
from open_crema.storage import read_json, replacing, write_json
from open_crema.training import align
from open_crema.training.optimizer import build_optimizer, schedule, set_rate
from open_crema.training.text_tuning import TARGETS

SENSE = "audio"
SENSES = ("video", SENSE)
OWN = tuple(n for n in needing(SENSE, "video") if n not in IN_TIME)
_ALIGNED = 30  # epochs
_FOUND = "found.json"
_APART = 1_000_003  # so that no step of one seed draws what one of another does
_RATE = 8e-4  # of an update of the LLM, as text tuning goes on with


class OwnQFormer(Adapter):
    """A Q-Former of the sense's own, all of it trained; it starts as the base's with its LoRA."""

    def begin(self, like: Adapter, qformer: QFormer) -> None:
        self.start_as(like)
        self.own = copy.deepcopy(qformer).requires_grad_(True)
        with torch.no_grad():
            for layer, update in zip(self.own.layers, self.lora, strict=True):
                attention: Any = layer.attention
                lora: Any = update
                attention.query.weight += lora.query.b @ lora.query.a
                attention.value.weight += lora.value.b @ lora.value.a
        self.lora = nn.ModuleList()

    def read(self, qformer: QFormer, memory: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.own(self.queries, memory, mask)
        return out


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
    old = model.adapter(SENSE)
    new = OwnQFormer(modality.get(SENSE), model.config, old.encoder_width, model.backbone.width)
    new.begin(model.adapter("video"), model.qformer)
    model.adapters[SENSE] = new


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
    aligned and steps (numbers of updates), seconds of training."""
    place = bench.out / "ways" / f"{way.name}-{seed}"
    if not place.exists():
        seconds = _measured(bench, ADAPTER, seed)["seconds"] if way.of_llm else None
        found = _measure(bench, way, seed, seconds)
        with replacing(place) as folder:
            write_json(folder / _FOUND, found)
    return read_json(place / _FOUND, "delete its folder, and it is measured again")


def _measure(bench: Bench, way: Way, seed: int, seconds: float | None) -> dict[str, Any]:
    video = video_alone(bench)
    stage = f"train.alignment.epochs={_ALIGNED}"
    config = config_of(bench, bench.out / "ways", video, seed, [stage], senses=SENSES)
    model = from_pretrained(video)
    torch.manual_seed(seed)  # loading may draw numbers
    model.add_sense(SENSE, like="video")
    if SENSE not in model.fusion.blocks:
        raise ConfigError(
            f"{bench.base}: its fusion does not merge; these studies need one that does"
        )
    model.requires_grad_(False)
    model.adapter(SENSE).fresh.fill_(False)
    model.adapter(SENSE).requires_grad_(True)
    model.fusion.blocks[SENSE].requires_grad_(True)
    way.change(model)
    asked = replace(bench.asking(f"ways-{way.name}", [*VIDEO, *OWN], 1), model=config.model)
    data = experiment.read_data(config, experiment.read_samples(config, "train"))
    test = experiment.read_data(asked, experiment.read_samples(asked, "test"))
    begun = time.perf_counter()
    aligned = 0 if way.of_llm else _align(model, config, data, seed)
    steps = _train(model, config, data, seed, way, seconds)
    seconds = time.perf_counter() - begun
    found = evaluate(model, test, config=asked.eval, blind=False)
    if len(found.predictions) != found.expected:
        raise CremaError(f"{len(found.predictions)} of {found.expected} questions were scored")
    return {
        "types": {name: asdict(row) for name, row in found.types.items()},
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "aligned": aligned,
        "steps": steps,
        "seconds": seconds,
    }


def _align(model: Crema, config: Config, data: FeatureDataset, seed: int) -> int:
    stage, together = config.train.alignment, config.train.questions

    def batches(epoch: int, skip: int) -> Iterator[Batch]:
        return data.batches(
            stage.batch_size,
            training=True,
            epoch=epoch,
            seed=seed,
            skip=skip,
            questions=together,
        )

    per_epoch = -(-len(data.rows(together)) // stage.batch_size)
    steps = align.align(
        model,
        data.samples,
        batches,
        stage,
        align.build_optimizer(model, stage),
        seed=seed * _APART,
        steps_per_epoch=per_epoch,
    )
    done = 0
    with progress.bar() as bar:
        task = bar.add_task("aligning", total=stage.epochs * per_epoch, note="")
        for _, _, loss in steps:
            done += 1
            bar.update(task, advance=1, note=f"loss {loss:.3f}")
    return done


def _train(
    model: Crema,
    config: Config,
    data: FeatureDataset,
    seed: int,
    way: Way,
    seconds: float | None,
) -> int:
    """Steps through the LLM: as many as are configured, or at a constant rate for so long."""
    train = config.train
    if way.of_llm:
        train = replace(train, lr=_RATE, schedule="constant")
    optimizer = build_optimizer(model, train)
    trained = [p for p in model.parameters() if p.requires_grad]
    per_epoch = train.epoch_steps or -(-len(data.rows(train.questions)) // train.batch_size)
    wanted, rate = train.epochs * per_epoch, schedule(train, per_epoch)
    begun, done = time.perf_counter(), 0
    model.train()
    with progress.bar() as bar:
        task = bar.add_task("training", total=wanted if seconds is None else None, note="")
        for batch in _endless(data, train.batch_size, train.questions, seed):
            spent = time.perf_counter() - begun
            if done >= wanted if seconds is None else spent >= seconds:
                break
            torch.manual_seed(seed * _APART + done)
            set_rate(optimizer, rate(done))
            loss = model(batch).loss
            if not loss.isfinite():
                raise CremaError(f"{way.title}: the loss of step {done} is {loss.item()}")
            loss.backward()
            nn.utils.clip_grad_norm_(trained, train.clip or torch.inf)
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            bar.update(task, advance=1, note=f"loss {loss.item():.3f}")
    model.eval()
    return done


def _endless(data: FeatureDataset, size: int, questions: int, seed: int) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from data.batches(size, training=True, epoch=epoch, seed=seed, questions=questions)
        epoch += 1
