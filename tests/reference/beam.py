"""Beam search as in transformers 4.33, which made the official files; one sample at a time.

Newer transformers count the length of a cut-off answer without its start token, and judge when to
stop from other numbers, so near the length limit their answers may differ.
"""

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

START, END = 0, 1

Answer = tuple[float, list[int]]


@torch.no_grad()
def beam_search(
    llm: T5ForConditionalGeneration,
    embeds: Tensor,
    mask: Tensor,
    beams: int,
    new_tokens: int,
    length_penalty: float,
) -> Tensor:
    """Ids [B, <=1+new_tokens]: start token, answer, end token if it ended, then pads (0)."""
    encoded = llm.encoder(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
    rows = [
        _search_one(llm, encoded[i : i + 1], mask[i : i + 1], beams, new_tokens, length_penalty)
        for i in range(len(embeds))
    ]
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])


def _search_one(
    llm: T5ForConditionalGeneration,
    encoded: Tensor,
    mask: Tensor,
    beams: int,
    new_tokens: int,
    length_penalty: float,
) -> list[int]:
    encoded, mask = encoded.expand(beams, -1, -1), mask.expand(beams, -1)
    running = [(0.0, [START])] + [(-1e9, [START])] * (beams - 1)
    finished: list[Answer] = []

    def finish(total: float, ids: list[int]) -> None:
        """Keep the best `beams` answers; `ids` has the start token and not the end token."""
        finished.append((total / len(ids) ** length_penalty, ids))
        finished.sort(key=lambda answer: answer[0], reverse=True)
        del finished[beams:]

    for _ in range(new_tokens):
        logits = llm(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            attention_mask=mask,
            decoder_input_ids=torch.tensor([ids for _, ids in running]),
        ).logits[:, -1]
        totals = logits.log_softmax(dim=-1) + torch.tensor([total for total, _ in running])[:, None]
        best, where = totals.flatten().topk(2 * beams)
        length = len(running[0][1])
        previous, running = running, []
        for rank, (total, index) in enumerate(zip(best.tolist(), where.tolist(), strict=True)):
            ids, token = previous[index // totals.shape[1]][1], index % totals.shape[1]
            if token != END:
                running.append((total, [*ids, token]))
            elif rank < beams:
                finish(total, ids)
            if len(running) == beams:
                break
        attainable = best.max().item() / (length + 1) ** length_penalty
        if len(finished) == beams and finished[-1][0] >= attainable:
            break
    else:
        for total, ids in running:
            finish(total, ids)
    answer = finished[0][1]
    return answer if len(answer) > new_tokens else [*answer, END]
