"""What the published layouts, adapters and training rules are, from hand-made facts."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from reference.beam import END, beam_search
from reference.cases import Case
from reference.generate import draw_case
from reference.plain import PlainCrema, Tensors, position_code
from reference.trace import ExitRule, Loop, Schedule, unfreeze_only


class Setup:
    """A tiny model of any modality set, with its inputs and tokens."""

    def __init__(self, modalities: str, task: str, frames: int = 2) -> None:
        case = Case(modalities, task, frames=frames)
        self.model, self.inputs, self.tokens = draw_case(case, torch.Generator().manual_seed(3))

    def forward(self, **changed: Tensor) -> Tensors:
        return self.model.forward(self.inputs | changed, self.tokens)

    def listed(self, modalities: str, task: str) -> PlainCrema:
        """The same weights under another listing or task."""
        return PlainCrema(self.model.weights, modalities.split("_"), task, self.model.size)


QUERIES, TEXT = 4, 11  # make_size, TEXT_LENGTHS


@pytest.mark.parametrize(
    ("modalities", "task", "frames", "length"),
    [
        ("rgb", "concat", 2, 2 * (5 + QUERIES) + TEXT),
        ("rgb", "concat", 1, 3 + QUERIES + TEXT),
        ("rgb_flow_depth", "concat", 2, 2 * (5 + 3 * QUERIES) + TEXT),
        ("rgb_audio", "concat", 2, 2 * (5 + QUERIES) + 2 * QUERIES + TEXT),
        ("rgb_pc", "concat", 2, 2 * (5 + QUERIES) + 5 + QUERIES + TEXT),
        ("rgb_audio_pc", "concat", 2, 2 * (5 + QUERIES) + 2 * QUERIES + TEXT),
        ("audio", "concat", 2, 4 + 2 * QUERIES + TEXT),
        ("pc", "concat", 2, 4 + QUERIES + TEXT),
        ("rgb_flow_depth", "espresso", 2, 2 * (5 + QUERIES) + TEXT),
        ("rgb_audio_pc", "espresso-concat", 2, 2 * 2 * (5 + QUERIES) + TEXT),
    ],
)
def test_prompt_length(modalities: str, task: str, frames: int, length: int) -> None:
    assert Setup(modalities, task, frames).forward()["llm/inputs_embeds"].shape == (2, length, 32)


def test_masks_of_the_three_layouts() -> None:
    """Two frames whose prefixes have 5 and 4 tokens; questions of 11 and 7."""
    half = [1] * 5 + [1] * QUERIES + [1] * 4 + [0] + [1] * QUERIES
    text = [[1] * 11, [1] * 7 + [0] * 4]
    for modalities, task, visual in (
        ("rgb", "concat", half),
        ("rgb_flow", "espresso-concat", half + half),
        ("rgb_flow", "espresso", [1] * len(half)),
    ):
        mask = Setup(modalities, task).forward()["llm/attention_mask"]
        assert mask.tolist() == [visual + row for row in text]


def test_espresso_concat_puts_all_prefixes_before_the_gated_block() -> None:
    setup = Setup("rgb_flow", "espresso-concat")
    out = setup.forward()
    embeds, prefix = out["llm/inputs_embeds"], setup.model.llm.shared(setup.tokens["prefix_ids"])
    half = 2 * (5 + QUERIES)
    assert torch.equal(embeds[0, half : half + 5], prefix[0])
    assert torch.equal(embeds[0, half + 5 : half + 10], prefix[1])
    x = torch.nn.functional.linear(
        out["proj/flow"],
        setup.model.weights["fusion.0.weight"],
        setup.model.weights["fusion.0.bias"],
    )
    gated = torch.nn.functional.silu(x).flatten(1, 2)
    assert torch.allclose(embeds[:, half + 10 : 2 * half], gated, atol=1e-6)


def test_point_cloud_is_dropped_beside_audio_in_plain_concat() -> None:
    setup = Setup("rgb_audio_pc", "concat")
    same = setup.forward(pc_feat=torch.randn_like(setup.inputs["pc_feat"]))
    assert torch.equal(same["llm/logits"], setup.forward()["llm/logits"])
    without = set(setup.model.trainable) - set(setup.model.gradients(same["loss"]))
    assert without == {name for name in setup.model.trainable if "_pc" in name}


def test_skip_bypasses_the_low_rank_weights_only() -> None:
    setup = Setup("rgb-skip_flow", "espresso-concat")
    with torch.no_grad():
        low_rank = [n for n in setup.model.weights if "w_b_rgb" in n]
        before = setup.forward()["proj/rgb"]
        for name in low_rank:
            setup.model.weights[name].add_(1.0)
        assert torch.equal(setup.forward()["proj/rgb"], before)
        setup.model.weights["query_tokens_rgb"].add_(torch.randn(1, QUERIES, 24))
        assert not torch.allclose(setup.forward()["proj/rgb"], before, atol=1e-3)
    out = setup.forward()
    used = setup.listed("rgb_flow", "espresso-concat").forward(setup.inputs, setup.tokens)
    assert not torch.allclose(used["proj/rgb"], out["proj/rgb"], atol=1e-3)
    assert torch.equal(used["proj/flow"], out["proj/flow"])
    assert not set(low_rank) & set(setup.model.gradients(out["loss"]))


def test_listing_order_changes_the_fused_result() -> None:
    setup = Setup("rgb_flow_depth", "espresso-concat")
    other = setup.listed("depth_rgb_flow", "espresso-concat").forward(setup.inputs, setup.tokens)
    assert abs(other["loss"] - setup.forward()["loss"]) > 1e-4


def test_sets_without_a_published_layout_are_refused() -> None:
    setup = Setup("audio", "concat")
    model = setup.listed("audio", "espresso")
    with pytest.raises(ValueError, match="no published layout"):
        model.forward(setup.inputs, setup.tokens)


def test_the_head_and_the_three_embeddings_are_four_tensors() -> None:
    model = Setup("rgb", "concat").model
    assert model.llm.config.dense_act_fn == "gelu"
    for name, value in model.llm.state_dict().items():
        assert torch.equal(value, model.weights[f"t5_model.{name}"]), name
    head, shared = model.llm.lm_head.weight, model.llm.shared.weight
    assert head.data_ptr() != shared.data_ptr()


def test_position_code_by_hand() -> None:
    code = position_code(torch.tensor([[[1, 2, 255]]]), width=10)[0, 0]
    slow = 10000.0 ** (-2 / 4)  # tables of 4, cut to 3
    hand = [
        *(math.sin(1), math.cos(1), math.sin(slow)),
        *(math.sin(2), math.cos(2), math.sin(2 * slow)),
        *(math.sin(255), math.cos(255), math.sin(255 * slow)),
        0.0,
    ]
    assert code.tolist() == pytest.approx(hand, abs=1e-5)


class TableLLM:
    """A language model over 4 tokens whose next token depends on length and last token only."""

    def __init__(self, seed: int) -> None:
        table = torch.randn(8, 4, 4, generator=torch.Generator().manual_seed(seed))
        self.log_probs = (2.0 * table).log_softmax(dim=-1)

    def encoder(self, inputs_embeds: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=inputs_embeds)

    def __call__(self, *, decoder_input_ids: Tensor, **_: object) -> SimpleNamespace:
        last = self.log_probs[decoder_input_ids.shape[1], decoder_input_ids[:, -1]]
        return SimpleNamespace(logits=last[:, None])

    def total(self, ids: list[int]) -> float:
        steps = range(1, len(ids))
        return sum(self.log_probs[i, ids[i - 1], ids[i]].item() for i in steps)


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 2.0])
@pytest.mark.parametrize("seed", range(5))
def test_wide_beam_search_finds_the_best_of_all_answers(seed: int, length_penalty: float) -> None:
    llm, longest = TableLLM(seed), 3
    scores = {}
    for n in range(longest + 1):
        for words in itertools.product((0, 2, 3), repeat=n):
            ids = [0, *words] if n == longest else [0, *words, END]
            # The end token does not count as length, the start token does.
            scores[tuple(ids)] = llm.total(ids) / (1 + n) ** length_penalty
    best = max(scores, key=scores.__getitem__)
    found = beam_search(llm, torch.zeros(1, 2, 3), torch.ones(1, 2), 40, longest, length_penalty)
    assert found.tolist() == [list(best)]


def test_exit_rule() -> None:
    rule = ExitRule(["rgb", "audio"], temperature=1.5, lazy_epoch=2)
    rule.close_epoch(0, {"rgb": 1.0, "audio": 1.0})
    rule.close_epoch(1, {"rgb": 9.0, "audio": 3.0})  # grew, but too early
    assert rule.exited == {"rgb": False, "audio": False}
    rule.close_epoch(2, {"rgb": 7.4, "audio": 3.1})  # thresholds 7.5 and 3
    assert rule.exited == {"rgb": False, "audio": True}
    rule.close_epoch(3, {"rgb": 1e3, "audio": 1e3})
    assert rule.exited == {"rgb": True, "audio": True}
    assert (rule.exit_epoch["rgb"], rule.exit_epoch["audio"], rule.exit_epoch["pc"]) == (3, 2, -1)
    assert rule.history == {"rgb": [1.0, 9.0, 7.4, 1e3], "audio": [1.0, 3.0, 3.1, 1e3]}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_sub_step_moves_one_modality_and_the_fusion(optimizer: str) -> None:
    setup = Setup("rgb_flow", "espresso-concat-seq")
    trained = setup.model.trainable
    before = {name: value.detach().clone() for name, value in trained.items()}
    loop = Loop(setup.model, setup.tokens, Schedule(1, optimizer, 0.01))
    unfreeze_only(setup.model, "flow")
    loop.step(setup.inputs, "flow", ["flow"])
    moved = {name for name, value in trained.items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if "_flow" in name or name.startswith("fusion.")}


def test_decay_spares_vectors() -> None:
    """A large decay and no learning signal: the step is the decay alone."""
    setup = Setup("rgb_pc", "concat")
    loop = Loop(setup.model, setup.tokens, Schedule(1, "adamw", 1e-3, weight_decay=100.0))
    before = {name: value.detach().clone() for name, value in setup.model.trainable.items()}
    for name, value in setup.model.trainable.items():
        value.grad = None if "rgb" in name else torch.zeros_like(value)
    loop.optimizer.step()
    for name, value in setup.model.trainable.items():
        factor = 0.9 if value.ndim > 1 and "rgb" not in name else 1.0
        assert torch.allclose(value, factor * before[name], atol=1e-6), name
