"""Alignment: query tokens learn to be words of the LLM, without a pass through the LLM.

A fresh Q-Former trained straight through a small LLM stays at chance for long: its tokens are
nothing that the LLM has ever read. So first each query token is trained to predict a word of the
answer as a row of the LLM's own embedding matrix. It is to a new base what BLIP-2's first stage is
to BLIP-2, and takes a minute where training through the LLM takes ten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from open_crema.config import AlignmentStageConfig
from open_crema.data.sample import Batch
from open_crema.model.crema import Crema


def words_in_use(model: Crema, answers: Iterable[str]) -> Tensor:
    """``[C]``: the distinct token ids of the answers, sorted."""
    ids = {i for answer in answers for i in model.backbone.encode(answer)}
    return torch.tensor(sorted(ids), dtype=torch.long, device=model.backbone.device)


def alignment_loss(
    model: Crema, batch: Batch, words: Tensor, config: AlignmentStageConfig
) -> Tensor:
    """Mean over query tokens of a cross-entropy and a squared error to the right row.

    Query token q of a segment stands for token ``q mod n`` of the answer's n tokens. The
    cross-entropy chooses, by cosine similarity over the temperature, among the words in use and
    ``random_rows`` others; the squared error is relative to the rows' mean squared norm.
    """
    rows = model.backbone.llm.get_input_embeddings().weight.detach()
    others = torch.randint(len(rows), (config.random_rows,), device=rows.device)
    others = others[~torch.isin(others, words)]
    candidates = torch.cat([words, others])
    table = rows[candidates].float()
    unit = functional.normalize(table, dim=1)
    scale = rows[words].float().square().sum(dim=1).mean()
    answers = [model.backbone.encode(s.answers[0]) for s in batch.samples]
    losses = []
    for sense in model.senses:
        if sense not in batch.senses:
            continue
        tokens = model.query(sense, batch.senses[sense])
        queries = tokens.tokens.shape[2]
        right = torch.tensor([[a[q % len(a)] for q in range(queries)] for a in answers])
        target = torch.searchsorted(words, right.to(words.device))  # its row among candidates
        real = tokens.segments[:, :, None].expand(tokens.tokens.shape[:3])
        said = tokens.tokens[real].float()  # [N, D]
        wanted = target[:, None].expand(tokens.tokens.shape[:3])[real]  # [N]
        logits = functional.normalize(said, dim=1) @ unit.T / config.temperature
        squared = (said - table[wanted]).square().sum(dim=1).mean() / scale
        losses.append(functional.cross_entropy(logits, wanted) + config.mse_weight * squared)
    return torch.stack(losses).mean()


def align(
    model: Crema,
    batches: Callable[[int], Iterable[Batch]],
    answers: Sequence[str],
    config: AlignmentStageConfig,
    *,
    seed: int,
    log: Callable[[int, int, float], None],
) -> None:
    """Trains the adapters (and the Q-Former where it is trainable) for ``config.epochs``.

    batches: epoch -> its batches. log: called with epoch, step, loss.
    """
    words = words_in_use(model, answers)
    trained = [p for p in model.adapters.parameters() if p.requires_grad]
    trained += [p for p in model.qformer.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=0.01)
    step = 0
    for epoch in range(config.epochs):
        for batch in batches(epoch):
            torch.manual_seed(seed + step)
            model.train()
            loss = alignment_loss(model, batch, words, config)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            log(epoch, step, loss.item())
            step += 1
