"""Families of causal LMs, each from a folder as transformers saves it: one protocol for all.

The weights are random and the sizes tiny. Windows of attention are shorter than the prompts, and
logits are capped hard, so that whatever ignores them shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, processors
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Split
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

import tiny
from open_crema import backbones
from open_crema.backbones.base import Backbone, Output, Prompt
from open_crema.backbones.decoder_only import DecoderOnly
from open_crema.config import AlignmentStageConfig, LoadingConfig
from open_crema.model.prompt import assemble
from open_crema.training.align import alignment_loss

WINDOW = 6  # tokens; every prompt below is longer
FAMILIES = {
    "llama": {},
    "qwen2": {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    "qwen3": {"head_dim": 8},
    "gemma": {"head_dim": 8},
    "gemma2": {
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": WINDOW,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 2.0,
    },
    "gemma3_text": {
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}
QUESTIONS = ["what is it now", "how many red dogs and how many cats are in the red room", "why"]
ANSWERS = ["red", "two dogs and cats", "dogs are in it"]
OPTIONS = [["red", "two dogs", "it"], ["two"], ["in the room", "in the red"]]
WORDS = sorted({word for text in (*QUESTIONS, *ANSWERS) for word in text.split()})
SPECIAL = ["<pad>", "<eos>", "<bos>", "<turn>", "<end>", "\n"]
IDS = {word: i for i, word in enumerate([*SPECIAL, "<unk>", "user", "model", "<think>", *WORDS])}
# As Gemma's: another name for the assistant, and a token of its own at the end of a turn.
TEMPLATE = (
    "<bos>{% for m in messages %}<turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content }}<end>\n{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
)


def tokenizer(template: str = TEMPLATE, *, starts: bool = False) -> PreTrainedTokenizerFast:
    """Each word is an added token, which every class of tokenizers keeps: transformers reads a
    Qwen2 folder with its own class, whatever was saved. starts: a text begins with <bos>."""
    inner = Tokenizer(BPE(vocab=IDS, merges=[]))
    inner.pre_tokenizer = Split(" ", "removed")
    if starts:
        inner.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", IDS["<bos>"])]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        additional_special_tokens=["<turn>", "<end>", "\n", "user", "model", "<think>"],
    )
    made.add_tokens(WORDS)
    made.chat_template = template or None
    return made


def save(family: str, folder: Path, *, template: str = TEMPLATE, starts: bool = False) -> Path:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](
        vocab_size=len(IDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,  # sharp enough that a wrong position or mask shows
        pad_token_id=IDS["<pad>"],
        bos_token_id=IDS["<bos>"],
        eos_token_id=IDS["<eos>"],
        **FAMILIES[family],
    )
    llm = AutoModelForCausalLM.from_config(config)
    llm.generation_config.eos_token_id = [IDS["<eos>"], IDS["<end>"]]
    llm.save_pretrained(folder)
    tokenizer(template, starts=starts).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request, tmp_path_factory) -> Backbone:
    folder = tmp_path_factory.mktemp("llm") / request.param
    return backbones.load(str(save(request.param, folder)))


def prompt_of(backbone: Backbone, questions: Sequence[str] = QUESTIONS) -> Prompt:
    return assemble(backbone, [], questions, tiny.config())


def text_of(question: str) -> list[int]:
    """The prompt as plain token ids, spelt out."""
    before = [IDS[w] for w in ("<bos>", "<turn>", "user", "\n")]
    after = [IDS[w] for w in ("<end>", "\n", "<turn>", "model", "\n")]
    return [*before, *(IDS[w] for w in question.split()), *after]


@torch.no_grad()
def plain_logits(backbone: Backbone, question: str, answer: list[int]) -> torch.Tensor:
    """By transformers alone: token ids of one sample, neither padding nor cache nor embeddings."""
    ids = torch.tensor([text_of(question) + answer])
    found: torch.Tensor = backbone.llm(input_ids=ids, use_cache=False).logits[0]
    return found[-len(answer) - 1 : -1]


def targets_of(backbone: Backbone) -> list[list[int]]:
    return [backbone.target(answer) for answer in ANSWERS]


def test_it_loads_frozen_and_reads_text_as_its_template_says(backbone):
    assert isinstance(backbone, DecoderOnly)
    assert not any(p.requires_grad for p in backbone.parameters())
    prompt = prompt_of(backbone)
    for row, question in enumerate(QUESTIONS):
        kept = prompt.mask[row].bool()
        assert torch.equal(
            prompt.embeds[row, kept],
            backbone.llm.get_input_embeddings()(torch.tensor(text_of(question))),
        )


def test_embeddings_give_what_token_ids_give(backbone):
    """Gemma scales its embeddings: both ways must, and once."""
    ids = torch.tensor([text_of(QUESTIONS[1])])
    with torch.no_grad():
        by_ids = backbone.llm(input_ids=ids).logits
        by_embeddings = backbone.llm(inputs_embeds=backbone.embed(ids)).logits
    assert torch.equal(by_ids, by_embeddings)


def test_logits_and_loss_are_plain_transformers_whatever_the_batch(backbone):
    targets = targets_of(backbone)
    together: Output = backbone(prompt_of(backbone), targets)
    losses = tiny.sample_losses(together.logits, together.labels)
    for row, (question, target) in enumerate(zip(QUESTIONS, targets, strict=True)):
        expected = plain_logits(backbone, question, target)
        assert torch.allclose(together.logits[row, : len(target)], expected, atol=2e-5)
        alone = backbone(prompt_of(backbone, [question]), [target])
        assert torch.allclose(losses[row], alone.loss * len(target), atol=2e-5)


def test_positions_count_real_tokens(backbone):
    """More padding, of anything at all, moves nothing."""
    prompt, targets = prompt_of(backbone), targets_of(backbone)
    waste = torch.randn(len(QUESTIONS), 5, backbone.width)
    mask = torch.cat([torch.zeros(waste.shape[:2]).long(), prompt.mask], dim=1)
    wider = Prompt(torch.cat([waste, prompt.embeds], dim=1), mask)
    a, b = backbone(prompt, targets), backbone(wider, targets)
    assert torch.allclose(a.logits, b.logits, atol=2e-5)
    seen = []
    handle = backbone.llm.get_decoder().register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["position_ids"]), with_kwargs=True
    )
    backbone(wider, targets)
    handle.remove()
    for row, (question, target) in enumerate(zip(QUESTIONS, targets, strict=True)):
        real = torch.cat([mask[row].bool(), torch.arange(max(map(len, targets))) < len(target)])
        assert seen[0][row][real].tolist() == list(range(len(text_of(question)) + len(target)))


def test_generation_is_plain_greedy_search(backbone):
    found = backbone.generate(prompt_of(backbone), max_new_tokens=5)
    for row, question in enumerate(QUESTIONS):
        new: list[int] = []
        while len(new) < 5 and not {*new} & {IDS["<eos>"], IDS["<end>"]}:
            new.append(int(plain_logits(backbone, question, [*new, 0])[-1].argmax()))
        padding = [IDS["<pad>"]] * (found.ids.shape[1] - len(new))
        assert found.ids[row].tolist() == new + padding


def test_options_score_as_full_passes_do(backbone):
    options = [[backbone.target(option) for option in own] for own in OPTIONS]
    found = backbone.score(prompt_of(backbone), options)
    for row, own in enumerate(options):
        for column, option in enumerate(own):
            log_p = plain_logits(backbone, QUESTIONS[row], option).log_softmax(-1)
            expected = log_p[torch.arange(len(option)), option].sum()
            assert torch.allclose(found.log_likelihood[row, column], expected, atol=5e-5)


def test_several_questions_behind_one_prefix_are_each_their_own(backbone):
    prefix = assemble(backbone, [], [""] * 2, tiny.config())
    asked = [[QUESTIONS[0], QUESTIONS[1]], [QUESTIONS[2]]]
    texts = [[[*backbone.encode(q), *backbone.after] for q in own] for own in asked]
    targets = targets_of(backbone)
    split = [targets[:2], targets[2:]]
    found = backbone.forward_shared(prefix, texts, split)
    expected = Backbone.forward_shared(backbone, prefix, texts, split)
    real = found.labels >= 0
    assert torch.allclose(found.logits[real], expected.logits[real], atol=5e-5)
    assert torch.allclose(found.loss, expected.loss, atol=1e-5)


def test_query_tokens_get_gradients_through_it(backbone):
    prompt = prompt_of(backbone)
    embeds = prompt.embeds.clone().requires_grad_()
    backbone(Prompt(embeds, prompt.mask), targets_of(backbone)).loss.backward()
    assert embeds.grad[prompt.mask == 1].any(dim=1).float().mean() > 0.9
    assert not embeds.grad[prompt.mask == 0].any()


def test_an_answer_ends_as_the_template_ends_a_turn(backbone):
    assert backbone.target("red") == [IDS["red"], IDS["<end>"]]
    assert backbone.stops == [IDS["<eos>"], IDS["<end>"]]


def test_alignment_is_to_rows_as_the_llm_reads_them(backbone):
    """Query tokens that are those rows have no squared error."""
    model = tiny.crema("video", llm=backbone)
    batch = tiny.batch(tiny.item(1, answer="red", video=2))
    row = backbone.embed(torch.tensor(IDS["red"]))
    adapter = model.adapter("video")
    with torch.no_grad():
        adapter.projection.weight.zero_()
        adapter.projection.bias.copy_(row)
    words = {frozenset(): [IDS["red"]]}

    def loss(weight: float) -> float:
        torch.manual_seed(0)
        config = AlignmentStageConfig(mse_weight=weight, random_rows=4)
        return float(alignment_loss(model, batch, words, config).loss.detach())

    assert loss(100.0) == pytest.approx(loss(0.0), abs=1e-4)


def test_half_precision_keeps_the_scale_of_embeddings(tmp_path):
    folder = save("gemma3_text", tmp_path)
    exact = backbones.load(str(folder))
    half = backbones.load(str(folder), loading=LoadingConfig(dtype="bf16"))
    ids = torch.tensor(text_of("why"))
    assert torch.allclose(half.embed(ids).float(), exact.embed(ids), rtol=0.02)


def test_without_a_template_a_text_starts_as_the_tokenizer_has_it(tmp_path):
    plain = backbones.load(str(save("qwen2", tmp_path / "a", template="")))
    assert (plain.before, plain.end) == ([], IDS["<eos>"])
    started = backbones.load(str(save("llama", tmp_path / "b", template="", starts=True)))
    assert started.before == [IDS["<bos>"]]
    assert started.target("red") == [IDS["red"], IDS["<eos>"]]
    assert plain.encode("red") == started.encode("red") == [IDS["red"]]


def test_a_template_that_can_think_is_told_not_to(tmp_path):
    """As Qwen3's: without a word it leaves the LLM to think before it answers."""
    thinking = TEMPLATE.removesuffix("{% endif %}") + (
        "{% if enable_thinking is defined and not enable_thinking %}<think>\n{% endif %}{% endif %}"
    )
    backbone = backbones.load(str(save("qwen3", tmp_path, template=thinking)))
    assert backbone.after[-2:] == [IDS["<think>"], IDS["\n"]]
