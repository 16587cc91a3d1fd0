"""A causal LM behind the protocol says exactly what plain transformers says of the same text."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tiny
from open_crema.backbones.base import IGNORED, Prompt
from open_crema.backbones.decoder_only import DecoderOnly
from open_crema.model.prompt import assemble

QUESTIONS = ["what is it", "how many red dogs , and how many cats , are in the room ?", "why"]
ANSWERS = ["red", "two dogs and a cat", "because of it"]
OPTIONS = [["red", "two dogs", "yes"], ["no"], ["a b c d", "a b c e"]]
BEFORE = "<|im_start|>user\n"
AFTER = "<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def backbone(request) -> DecoderOnly:
    return DecoderOnly(tiny.llama(attention=request.param), tiny.TinyTokenizer())


def prompt_of(backbone, questions=QUESTIONS) -> Prompt:
    return assemble(backbone, [], questions, tiny.config())


def ids_of(backbone, question) -> list[int]:
    return backbone.encode(BEFORE + question + AFTER)


def padded_more(prompt: Prompt, columns: int = 5) -> Prompt:
    """The same prompt with more padding, which holds anything at all."""
    torch.manual_seed(1)
    waste = torch.randn(len(prompt.mask), columns, prompt.embeds.shape[2])
    embeds = torch.cat([waste, prompt.embeds], dim=1)
    return Prompt(embeds, torch.cat([torch.zeros_like(waste[:, :, 0]).long(), prompt.mask], dim=1))


@torch.no_grad()
def plain_log_p(backbone, question: str, answer: list[int]) -> torch.Tensor:
    """Each answer token's log-probability, one full forward of the plain LLM, no cache."""
    before = ids_of(backbone, question)
    logits = backbone.llm(input_ids=torch.tensor([before + answer]), use_cache=False).logits[0]
    log_p = logits.log_softmax(-1)
    return torch.stack([log_p[len(before) + i - 1, t] for i, t in enumerate(answer)])


def test_text_alone_becomes_the_chat_format(backbone):
    prompt = prompt_of(backbone)
    for row, question in enumerate(QUESTIONS):
        expected = backbone.embed(torch.tensor(ids_of(backbone, question)))
        kept = prompt.mask[row].bool()
        assert torch.equal(prompt.embeds[row, kept], expected)
        assert not prompt.mask[row, : (~kept).sum()].any(), "padding stands on the left"


@pytest.mark.parametrize("row", range(3))
def test_loss_without_senses_is_plain_transformers_loss(backbone, row):
    before = ids_of(backbone, QUESTIONS[row])
    target = backbone.target(ANSWERS[row])
    ids = torch.tensor([before + target])
    labels = torch.tensor([[IGNORED] * len(before) + target])
    plain = backbone.llm(input_ids=ids, labels=labels)
    ours = backbone(prompt_of(backbone, [QUESTIONS[row]]), [target])
    assert torch.allclose(ours.loss, plain.loss, atol=1e-6)
    start = len(before) - 1
    assert torch.allclose(ours.logits, plain.logits[:, start : start + len(target)], atol=1e-5)
    assert ours.labels.tolist() == [target]


def test_batch_loss_is_the_token_mean_of_plain_losses(backbone):
    targets = [backbone.target(a) for a in ANSWERS]
    out = backbone(prompt_of(backbone), targets)
    each = [-plain_log_p(backbone, q, t) for q, t in zip(QUESTIONS, targets, strict=True)]
    assert torch.allclose(out.loss, torch.cat(each).mean(), atol=1e-6)
    own = tiny.sample_losses(out.logits, out.labels)
    assert torch.allclose(own, torch.stack([e.sum() for e in each]), atol=1e-5)


def test_without_a_chat_template_the_question_ends_in_a_line_break():
    backbone = DecoderOnly(tiny.llama(), tiny.TinyTokenizer(chat=False))
    target = backbone.target("red")
    before = backbone.encode("what is it\n")
    plain = backbone.llm(
        input_ids=torch.tensor([before + target]),
        labels=torch.tensor([[IGNORED] * len(before) + target]),
    )
    ours = backbone(prompt_of(backbone, ["what is it"]), [target])
    assert torch.allclose(ours.loss, plain.loss, atol=1e-6)


def test_more_left_padding_changes_nothing(backbone):
    prompt, targets = prompt_of(backbone), [backbone.target(a) for a in ANSWERS]
    wider = padded_more(prompt)
    a, b = backbone(prompt, targets), backbone(wider, targets)
    assert torch.allclose(a.logits, b.logits, atol=1e-5)
    found = [backbone.generate(p, max_new_tokens=6).ids.tolist() for p in (prompt, wider)]
    assert found[0] == found[1]
    options = [[backbone.target(o) for o in own] for own in OPTIONS]
    a, b = backbone.score(prompt, options), backbone.score(wider, options)
    assert torch.allclose(a.log_likelihood, b.log_likelihood, atol=1e-5)


def test_padding_gets_no_gradient_and_gives_none(backbone):
    wider = padded_more(prompt_of(backbone))
    embeds = wider.embeds.clone().requires_grad_()
    backbone(Prompt(embeds, wider.mask), [backbone.target(a) for a in ANSWERS]).loss.backward()
    assert torch.isfinite(embeds.grad).all()
    assert not embeds.grad[wider.mask == 0].any()
    assert embeds.grad[wider.mask == 1].any()


def test_generation_is_plain_greedy_decoding_whatever_the_batch(backbone):
    found = backbone.generate(prompt_of(backbone), max_new_tokens=6, scores=True)
    for row, question in enumerate(QUESTIONS):
        ids = torch.tensor([ids_of(backbone, question)])
        new: list[int] = []
        with torch.no_grad():
            while len(new) < 6 and (not new or new[-1] != backbone.tokenizer.eos_token_id):
                logits = backbone.llm(input_ids=ids, use_cache=False).logits[0, -1]
                assert torch.allclose(found.scores[len(new), row], logits, atol=1e-4)
                new.append(int(logits.argmax()))
                ids = torch.cat([ids, torch.tensor([new[-1:]])], dim=1)
        padding = [backbone.tokenizer.pad_token_id] * (found.ids.shape[1] - len(new))
        assert found.ids[row].tolist() == new + padding
        alone = backbone.generate(prompt_of(backbone, [question]), max_new_tokens=6)
        assert alone.texts == [found.texts[row]]


def test_beam_search_of_a_batch_is_that_of_its_samples(backbone):
    together = backbone.generate(prompt_of(backbone), max_new_tokens=5, beams=3)
    alone = [
        backbone.generate(prompt_of(backbone, [q]), max_new_tokens=5, beams=3).texts[0]
        for q in QUESTIONS
    ]
    assert together.texts == alone


def test_option_scores_with_a_cache_are_those_of_full_forward_passes(backbone):
    options = [[backbone.target(o) for o in own] for own in OPTIONS]
    found = backbone.score(prompt_of(backbone), options)
    assert found.log_likelihood.shape == (3, 3)
    for row, own in enumerate(options):
        for column, option in enumerate(own):
            expected = plain_log_p(backbone, QUESTIONS[row], option).sum()
            assert torch.allclose(found.log_likelihood[row, column], expected, atol=1e-5)
            assert found.tokens[row, column] == len(option)
        assert (found.log_likelihood[row, len(own) :] == -torch.inf).all()
        assert (found.tokens[row, len(own) :] == 1).all()
    assert torch.allclose(found.probabilities().sum(1), torch.ones(3))


def test_options_of_the_end_token_alone_need_no_second_pass(backbone):
    end = [backbone.tokenizer.eos_token_id]
    found = backbone.score(prompt_of(backbone, QUESTIONS[:1]), [[end, end]])
    expected = plain_log_p(backbone, QUESTIONS[0], end).sum()
    assert torch.allclose(found.log_likelihood, expected.expand(1, 2), atol=1e-5)


def test_an_option_that_a_greedy_search_gives_is_known_as_one(backbone):
    prompt = prompt_of(backbone, QUESTIONS[:1])
    said = backbone.generate(prompt, max_new_tokens=3).ids[0].tolist()
    found = backbone.score(prompt, [[said, said[:2], [said[0], said[1] + 1], [said[0] + 1]]])
    assert found.greedy.tolist() == [[True, True, False, False]]
    both = backbone.score(prompt_of(backbone, QUESTIONS[:2]), [[said], [said, said]])
    assert both.greedy[0].tolist() == [True, False]  # the second is none of its options


def test_the_loss_of_an_answer_is_its_score_as_an_option(backbone):
    targets = [backbone.target(a) for a in ANSWERS]
    scores = backbone.score(prompt_of(backbone), [[t] for t in targets])
    out = backbone(prompt_of(backbone), targets)
    own = tiny.sample_losses(out.logits, out.labels)
    assert torch.allclose(scores.log_likelihood[:, 0], -own, atol=1e-5)


def test_logits_are_made_for_target_positions_only(backbone):
    out = backbone(prompt_of(backbone), [backbone.target(a) for a in ANSWERS])
    longest = max(len(backbone.target(a)) for a in ANSWERS)
    assert out.logits.shape == (3, longest, tiny.VOCABULARY)


def test_a_real_tokenizers_template_is_cut_where_the_user_speaks():
    words = ["<unk>", "<pad>", "<|im_start|>", "<|im_end|>", "user", "assistant", "system"]
    words += ["Be", "brief", "What", "is", "it", "\n"]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "user", "assistant", "system", "\n"],
    )
    tokenizer.chat_template = (
        "<|im_start|>system\nBe brief<|im_end|>\n"
        "{% for m in messages %}{{'<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n'}}"
        "{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}{% endif %}"
    )
    backbone = DecoderOnly(tiny.llama(), tokenizer)
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is it"}],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert [*backbone.before, *backbone.encode("What is it"), *backbone.after] == whole
    assert tokenizer.unk_token_id not in whole


def test_a_space_at_the_end_of_a_chat_template_is_the_answers():
    """A tokenizer of the GPT-2 kind has " red" as one token, and a text in the middle ends so."""

    class Plain(tiny.TinyTokenizer):
        def apply_chat_template(self, turns, *, tokenize, add_generation_prompt, **_):
            assert self.chat_template == "of its own"
            return f"<|im_start|>{turns[0]['content']}\n  "

        def encode(self, text, *, add_special_tokens):
            ids = super().encode(text, add_special_tokens=add_special_tokens)
            return [7] * (len(text) - len(text.lstrip(" "))) + ids

    backbone = DecoderOnly(tiny.llama(), Plain(chat=False))
    assert (backbone.before, backbone.after, backbone.lead) == ([], [3], "")
    backbone.use_template("of its own")
    assert (backbone.before, backbone.after, backbone.lead) == ([2], [3], "  ")
    red = backbone.encode("red")
    assert backbone.target("red") == [7, 7, *red, 1]


def test_a_tokenizer_without_a_padding_token_will_do():
    class NoPadding(tiny.TinyTokenizer):
        pad_token_id = None

    backbone = DecoderOnly(tiny.llama(), NoPadding())
    usual = DecoderOnly(tiny.llama(), tiny.TinyTokenizer())
    targets = [backbone.target(a) for a in ANSWERS]
    expected = usual(prompt_of(usual), targets).loss
    assert torch.allclose(backbone(prompt_of(backbone), targets).loss, expected, atol=1e-6)
    assert backbone.generate(prompt_of(backbone), max_new_tokens=2).texts
    assert backbone.score(prompt_of(backbone), [[t] for t in targets]).tokens.shape == (3, 1)


def test_greedy_search_is_greedy_whatever_the_models_own_defaults():
    # the question has an answer that repeats itself, which a penalty would change
    usual = DecoderOnly(tiny.llama(), tiny.TinyTokenizer())
    llm = tiny.llama()
    llm.generation_config.repetition_penalty = 1.5
    llm.generation_config.no_repeat_ngram_size = 1
    backbone = DecoderOnly(llm, tiny.TinyTokenizer())
    expected = usual.generate(prompt_of(usual), max_new_tokens=10, scores=True)
    found = backbone.generate(prompt_of(backbone), max_new_tokens=10, scores=True)
    assert torch.equal(found.ids, expected.ids)
    assert torch.equal(found.scores, expected.scores)
