from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from open_crema.errors import CremaError, DataError
from open_crema.model.fusion import Block
from open_crema.model.prompt import assemble, pack

BACKBONES = {kind: tiny.backbone(kind) for kind in ("decoder-only", "encoder-decoder")}


@settings(max_examples=60)
@given(
    rows=st.integers(0, 6).flatmap(
        lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=4)
    ),
    side=st.sampled_from(["left", "right"]),
)
def test_pack_against_a_naive_loop(rows, side):
    mask = torch.tensor(rows, dtype=torch.bool)
    embeds = torch.arange(1.0, 1 + mask.numel() * 2).view(*mask.shape, 2)
    found = pack(embeds, mask, side)
    longest = max(sum(row) for row in rows)
    assert found.embeds.shape == (len(rows), longest, 2)
    for i, row in enumerate(rows):
        kept = [embeds[i, j].tolist() for j, real in enumerate(row) if real]
        pads = [[0.0, 0.0]] * (longest - len(kept))
        marks = [1] * len(kept), [0] * len(pads)
        left = side == "left"
        assert found.embeds[i].tolist() == (pads + kept if left else kept + pads)
        assert found.mask[i].tolist() == (marks[1] + marks[0] if left else marks[0] + marks[1])


def test_pack_sends_every_gradient_back_to_its_own_token():
    torch.manual_seed(0)
    embeds = torch.randn(2, 5, 3, requires_grad=True)
    mask = torch.tensor([[True, False, True, True, False], [False, True, False, False, False]])
    packed = pack(embeds, mask, "left")
    weight = torch.randn(packed.embeds.shape)
    (packed.embeds * weight).sum().backward()
    assert not embeds.grad[~mask].any()
    assert torch.equal(embeds.grad[0, mask[0]], weight[0])
    assert torch.equal(embeds.grad[1, 1], weight[1, -1])


def block(label: str, masks: list[list[bool]], seed: int = 0) -> Block:
    mask = torch.tensor(masks)
    noise = torch.Generator().manual_seed(seed)
    return Block(label, "video", 0, torch.randn(*mask.shape, 32, generator=noise), mask)


@pytest.mark.parametrize("kind", BACKBONES)
def test_blocks_labels_and_text_stand_in_order_and_absent_ones_leave_no_label(kind):
    backbone = BACKBONES[kind]
    blocks = [
        block("Frame 1: ", [[True, True], [False, False], [True, False]], 1),
        block("Audio 1: ", [[True, True], [True, True], [False, False]], 2),
    ]
    questions = ["what", "how many dogs are there", "why not"]
    found = assemble(backbone, blocks, questions, tiny.config())
    for row, question in enumerate(questions):
        pieces = [backbone.embed(torch.tensor(backbone.before, dtype=torch.long))]
        for b in blocks:
            if b.mask[row].any():
                pieces.append(backbone.embed(torch.tensor(backbone.encode(b.label))))
                pieces.append(b.tokens[row, b.mask[row]])
        text = torch.tensor([*backbone.encode(question), *backbone.after])
        pieces.append(backbone.embed(text))
        assert torch.equal(found.embeds[row, found.mask[row].bool()], torch.cat(pieces))
    first = found.mask[:, 0] if backbone.side == "right" else found.mask[:, -1]
    assert first.all(), "padding stands at one end only"


def limited(tokens: int, overflow: str):
    return tiny.config(prompt={"max_text_tokens": tokens, "overflow": overflow})


@pytest.mark.parametrize("kind", BACKBONES)
def test_the_limit_counts_the_closing_tokens_too(kind):
    backbone = BACKBONES[kind]
    fits = 4 + len(backbone.after)
    assemble(backbone, [], ["a b c d"], limited(fits, "error"))
    with pytest.raises(DataError, match=r"5 tokens, 4 fit .*max_text_tokens.*'a b c d e'"):
        assemble(backbone, [], ["a b", "a b c d e"], limited(fits, "error"))


@pytest.mark.parametrize("kind", BACKBONES)
def test_truncation_cuts_the_question_and_keeps_its_close(kind):
    backbone = BACKBONES[kind]
    found = assemble(backbone, [], ["a b c d e"], limited(4 + len(backbone.after), "truncate"))
    whole = assemble(backbone, [], ["a b c d"], tiny.config())
    assert torch.equal(found.embeds, whole.embeds)


def test_a_limit_that_not_even_the_close_fits_is_refused():
    with pytest.raises(CremaError):
        assemble(BACKBONES["decoder-only"], [], ["a b c d e f g h"], limited(2, "truncate"))


def test_an_empty_question_is_still_closed():
    for backbone in BACKBONES.values():
        found = assemble(backbone, [], [""], tiny.config())
        assert found.mask.sum() == len(backbone.before) + len(backbone.after)


# The reference layout is compared with the released code's output in tests/golden.


def reference(*senses: str, **options):
    return tiny.crema(*senses, kind="encoder-decoder", prompt={"layout": "reference"}, **options)


def test_the_reference_layout_refuses_batches_of_mixed_senses():
    model = reference("video", "audio")
    with pytest.raises(DataError, match="same senses"):
        model(tiny.batch(tiny.item(1, video=2, audio=1), tiny.item(2, video=2)))


def test_the_reference_layout_pads_prefixes_in_place():
    model = reference("video", "audio")
    batch = tiny.batch(tiny.item(1, video=2, audio=1), tiny.item(2, video=2, audio=1))
    prompt = model.prompt(model.query_all(batch), batch)
    prefix = len(model.backbone.encode("Frame 1: "))
    text = len(model.backbone.encode("what is it")) + 1
    assert prompt.mask.shape == (2, 2 * 2 * (prefix + 3) + text)


@pytest.mark.parametrize("senses", [("depth",), ("audio", "depth")])
def test_the_reference_layout_drops_no_sense_in_silence(senses):
    model = reference(*senses, fusion={"kind": "concat"})
    with_sense = tiny.batch(tiny.item(1, **dict.fromkeys(senses, 2)))
    without = with_sense.only(s for s in senses if s != "depth")
    try:
        a, b = model(with_sense), model(without)
    except CremaError:
        return  # refusing is as good
    assert not torch.equal(a.logits, b.logits)


def test_the_reference_layout_with_a_decoder_only_llm_is_right_or_refused():
    options = ("red", "two dogs")
    short = tiny.item(1, question="why", options=options, video=2)
    long = tiny.item(2, question="how many red dogs are there", options=options, video=2)
    try:
        model = tiny.crema("video", prompt={"layout": "reference"})
        together = model.score(tiny.batch(short, long)).log_likelihood[0]
    except CremaError:
        return
    alone = model.score(tiny.batch(short)).log_likelihood[0]
    assert torch.allclose(together, alone, atol=1e-5)
