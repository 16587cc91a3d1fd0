"""Made-up token ids in the layout of the golden files; there is no tokenizer behind them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from reference.plain import Tensors

PAD, END, FIRST_WORD = 0, 1, 3
MAX_TEXT = 77

PREFIX_LENGTHS = (5, 4, 5, 3)  # of "Frame 1: ", "Frame 2: ", ...: different, so some are padded
TEXT_LENGTHS = (11, 7, 14)  # of the questions of a batch, with their end token
ANSWER_LENGTHS = (3, 2, 4)


def frame_prefixes(frames: int) -> list[str]:
    """The text of the frame prefixes."""
    return ["Frame: "] if frames == 1 else [f"Frame {t + 1}: " for t in range(frames)]


def make_tokens(
    frames: int, batch: int, vocab: int, generator: torch.Generator, long_text: bool = False
) -> Tensors:
    """`tok/` tensors: ids and masks [rows, longest], padded on the right.

    `long_text` makes the first question as long as truncation allows.
    """

    def words(count: int) -> list[int]:
        drawn = torch.randint(FIRST_WORD, vocab, (count,), generator=generator)
        return [int(i) for i in drawn]

    prefixes = [words(n) for n in ((3,) if frames == 1 else PREFIX_LENGTHS[:frames])]
    lengths = [MAX_TEXT, *TEXT_LENGTHS[1:]] if long_text else list(TEXT_LENGTHS)
    texts = [[*words(n - 1), END] for n in lengths[:batch]]
    answers = [[*words(n - 1), END] for n in ANSWER_LENGTHS[:batch]]
    tokens: Tensors = {}
    for name, rows in (("prefix", prefixes), ("text", texts), ("answer", answers)):
        tokens[f"{name}_ids"], tokens[f"{name}_mask"] = _pad(rows)
    tokens["pc_prefix_ids"] = torch.tensor([words(5)])
    tokens["audio_prefix_ids"] = torch.tensor([words(4)])
    return tokens


def spell(ids: Tensor, mask: Tensor) -> list[str]:
    """A readable stand-in for the text of each row."""
    rows = zip(ids.tolist(), mask.tolist(), strict=True)
    return [
        " ".join(f"<{i}>" for i, m in zip(row, on, strict=True) if m and i != END)
        for row, on in rows
    ]


def _pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask
