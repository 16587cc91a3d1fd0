"""Write golden files from the plain implementation, in the format of the official ones.

    PYTHONPATH=tests python -m reference.generate OUT_DIR [--seed N] [--only NAME ...]

Random weights and random encoder outputs at a tiny size: no pictures, ViT or BEATs, no tokenizer.
A case depends on its name and the seed only, so a part of the set is equal to the same part of
the whole. A draw whose discrete results (generated ids, exits) hang on a rounding error would test
luck, so it is drawn again.
"""

import argparse
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from reference.cases import CASES, TRACES, Case, TraceCase, make_size
from reference.plain import (
    BEAMS,
    LENGTH_PENALTY,
    OPEN_TOKENS,
    OPTION_IDS,
    PlainCrema,
    Tensors,
    base_name,
)
from reference.tokens import END, frame_prefixes, make_tokens, spell
from reference.trace import Loop
from reference.weights import random_weights

SEGMENTS, AUDIO_TOKENS, POINTS = 2, 6, 7
DRAWS, DISTURBANCES, DISTURBANCE = 50, 3, 3e-5
EXIT_MARGIN = 0.03


def generate(out_dir: Path, seed: int = 0, only: Sequence[str] | None = None) -> list[Path]:
    """Write the cases (`NAME.*`) and traces (`trace_NAME.*`), or those named in `only`.

    Returns the safetensors paths; a json with the same stem is beside each. Raises ValueError
    for a name that does not exist.
    """
    makers = {case.name: (make_case, case) for case in CASES}
    makers |= {f"trace_{case.name}": (make_trace, case) for case in TRACES}
    unknown = set(only or ()) - set(makers)
    if unknown:
        raise ValueError(f"no such golden case: {sorted(unknown)}; there are: {list(makers)}")
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in makers if only is None else only:
        make, case = makers[name]
        tensors, record = make(case, seed)
        path = out_dir / f"{name}.safetensors"
        save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, path)
        path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
        paths.append(path)
    return paths


def make_case(case: Case, seed: int) -> tuple[Tensors, dict[str, Any]]:
    """All tensors and the json of one forward case."""
    for random in _generators(case.name, seed):
        drawn = draw_case(case, random)
        model, inputs, tokens = drawn
        out = model.forward(inputs, tokens)
        answers = _steady_answers(model, out["llm/inputs_embeds"], out["llm/attention_mask"])
        if answers is not None:
            return _record_case(case, seed, drawn, out, answers)
    raise RuntimeError(f"no draw of {case.name} gives answers that stand a rounding error")


def draw_case(case: Case, random: torch.Generator) -> tuple[PlainCrema, Tensors, Tensors]:
    """A model with random weights, its inputs and its tokens."""
    modalities = case.modalities.split("_")
    size = make_size(case.frames, case.width, case.layers)
    weights = random_weights(size, modalities, case.task, random)
    inputs = _random_inputs(size, modalities, case.batch, random)
    tokens = make_tokens(case.frames, case.batch, size["t5"]["vocab_size"], random, case.long_text)
    model = PlainCrema(weights, modalities, case.task, size)
    if case.end_at is not None:
        out = model.forward(inputs, tokens)
        ids, _, _ = model.answer_choice(out["llm/inputs_embeds"], out["llm/attention_mask"])
        head = weights["t5_model.lm_head.weight"]
        head[END] = 1.2 * head[ids[0, case.end_at]]
        model = PlainCrema(weights, modalities, case.task, size)
    return model, inputs, tokens


def _steady_answers(model: PlainCrema, embeds: Tensor, mask: Tensor) -> Tensors | None:
    """`gen/` tensors and `pred`; None if a disturbance of the embeddings changes any of them.

    Also None where the beam search of the installed transformers finds another answer than the
    one of 4.33: what such a case would test is the version.
    """
    embeds, batch = embeds.detach(), len(embeds)
    random = torch.Generator().manual_seed(0)
    noise = DISTURBANCE * torch.randn(DISTURBANCES, *embeds.shape, generator=random)
    moved = torch.cat((embeds[None], embeds + noise)).flatten(0, 1)
    masks = mask.repeat(1 + DISTURBANCES, 1)
    stock = model.llm.generate(
        inputs_embeds=moved,
        attention_mask=masks,
        num_beams=BEAMS,
        max_new_tokens=OPEN_TOKENS,
        min_length=1,
        length_penalty=LENGTH_PENALTY,
        do_sample=False,
    )
    open_ids = model.answer_open(embeds, mask)
    if _up_to_end(stock) != _up_to_end(open_ids) * (1 + DISTURBANCES):
        return None
    ids, scores, predicted = model.answer_choice(embeds, mask)
    moved_ids, _, moved_predicted = model.answer_choice(moved[batch:], masks[batch:])
    if moved_predicted != predicted * DISTURBANCES:
        return None
    if _up_to_end(moved_ids) != _up_to_end(ids) * DISTURBANCES:
        return None
    pred = torch.tensor(predicted)
    return {"oeqa_ids": open_ids, "mcqa_ids": ids, "mcqa_scores": scores, "pred": pred}


def _up_to_end(ids: Tensor) -> list[list[int]]:
    """Rows without what follows the end token, which versions pad differently."""
    return [row[: row.index(END)] if END in row else row for row in ids.tolist()]


def _record_case(
    case: Case,
    seed: int,
    drawn: tuple[PlainCrema, Tensors, Tensors],
    out: Tensors,
    answers: Tensors,
) -> tuple[Tensors, dict[str, Any]]:
    model, inputs, tokens = drawn
    loss = out.pop("loss")
    grads = model.gradients(loss)
    predicted = answers.pop("pred").tolist()
    tensors = {
        **_under("sd", model.weights),
        **_under("in", {k: v for k, v in inputs.items() if k.startswith("pc")}),
        **_under("raw", {k: v for k, v in inputs.items() if not k.startswith("pc")}),
        **out,
        **_under("grad", grads),
        **_under("gen", answers),
        **_under("tok", tokens),
    }
    shown = ("in/", "raw/", "enc/", "qf/", "proj/", "llm/", "tok/")
    record = {
        "case": case.name,
        "modalities": model.modalities,
        "task": case.task,
        "size": model.size,
        "seed": seed,
        "loss": loss.item(),
        **_strings(tokens),
        "trainable": list(model.trainable),
        "trainable_without_grad": [name for name in model.trainable if name not in grads],
        "mcqa_pred": predicted,
        "answer_id": list(OPTION_IDS),
        "prefixes": frame_prefixes(case.frames),
        "shapes": {k: list(v.shape) for k, v in tensors.items() if k.startswith(shown)},
        **_versions(),
    }
    return tensors, record


def make_trace(case: TraceCase, seed: int) -> tuple[Tensors, dict[str, Any]]:
    """All tensors and the json of one training run."""
    modalities = case.modalities.split("_")
    size = make_size(case.frames)
    for random in _generators(f"trace_{case.name}", seed):
        weights = random_weights(size, modalities, case.task, random)
        batches = [_random_inputs(size, modalities, case.batch, random) for _ in range(case.iters)]
        tokens = make_tokens(case.frames, case.batch, size["t5"]["vocab_size"], random)
        model = PlainCrema(weights, modalities, case.task, size)
        loop = Loop(model, tokens, case.schedule)
        run = loop.run(batches)
        if sum(loop.rule.exited.values()) == case.exits and loop.rule.margin > EXIT_MARGIN:
            break
    else:
        raise RuntimeError(f"no draw of trace {case.name} has {case.exits} clear exits")
    tensors = {**_under("init", weights), **_under("tok", tokens)}
    for i, batch in enumerate(batches):
        for name, value in batch.items():
            tensors[f"{'batch' if name.startswith('pc') else 'raw'}{i}/{name}"] = value
    for epoch in (0, case.schedule.epochs - 1):
        tensors |= _under(f"after_epoch{epoch}", run.after_epoch[epoch])
    schedule = asdict(case.schedule)
    record = {
        "name": case.name,
        "modalities": modalities,
        "task": case.task,
        "epochs": schedule["epochs"],
        "iters": case.iters,
        "optimizer": schedule["optimizer"],
        "lr": schedule["lr"],
        "weight_decay": schedule["weight_decay"],
        "betas": schedule["betas"],
        "eps": schedule["eps"],
        "accum": 1,
        "es_temperature": schedule["es_temperature"],
        "lazy_epoch": schedule["lazy_epoch"],
        "zero_count_patch": True,
        "size": size,
        **_strings(tokens),
        "trainables": list(model.trainable),
        "steps": run.steps,
        "epoch_records": run.epoch_records,
        "error": None,
        **_versions(),
    }
    return tensors, record


def _generators(name: str, seed: int) -> Iterator[torch.Generator]:
    """One source of randomness a draw; the order of draws depends on name and seed only."""
    for draw in range(DRAWS):
        yield torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}/{draw}".encode()))


def _random_inputs(
    size: dict[str, Any], modalities: Sequence[str], batch: int, random: torch.Generator
) -> Tensors:
    """Encoder outputs by official name, and pc_feat and pc for a point cloud."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    vit, width = size["vit"], size["width"]
    patches = (vit["img_size"] // vit["patch_size"]) ** 2 + 1
    inputs: Tensors = {}
    for name in map(base_name, modalities):
        if name == "pc":
            inputs["pc_feat"] = normal(batch, POINTS, width)
            grid = torch.randint(0, 256, (batch, POINTS, 3), generator=random)
            inputs["pc"] = grid.float()
        elif name == "audio":
            wide = size["beats"]["encoder_embed_dim"]
            inputs["audio"] = normal(batch, SEGMENTS, AUDIO_TOKENS, wide)
        else:
            inputs[name] = 2.0 * normal(batch * size["frames"], patches, width)
    return inputs


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def _strings(tokens: Tensors) -> dict[str, list[str]]:
    return {
        "qa_input": spell(tokens["text_ids"], tokens["text_mask"]),
        "qa_output": spell(tokens["answer_ids"], tokens["answer_mask"]),
    }


def _versions() -> dict[str, str]:
    return {"torch": torch.__version__, "transformers": transformers.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(prog="reference.generate", description=__doc__.split("\n")[0])
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for path in generate(arguments.out_dir, arguments.seed, arguments.only):
        print(path)


if __name__ == "__main__":
    main()
