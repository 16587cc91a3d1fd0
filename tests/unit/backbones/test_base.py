from __future__ import annotations

import pytest
import torch

import tiny
from open_crema.backbones.base import (
    IGNORED,
    Backbone,
    Generation,
    OptionScores,
    cross_entropy,
)


@pytest.fixture(params=["decoder-only", "encoder-decoder"])
def backbone(request) -> Backbone:
    return tiny.backbone(request.param)


def test_the_llm_is_frozen_and_its_width_known(backbone):
    assert backbone.width == 32
    assert not any(p.requires_grad for p in backbone.parameters())


def test_a_target_is_the_answer_closed_by_the_end_token(backbone):
    tokenizer = backbone.tokenizer
    words = tokenizer.encode("two dogs", add_special_tokens=False)
    assert backbone.target("two dogs") == [*words, tokenizer.eos_token_id]
    assert backbone.target("") == [tokenizer.eos_token_id]


def test_pad_is_on_the_right_and_as_long_as_the_longest(backbone):
    assert backbone.pad([[5], [7, 8, 9], []], 4).tolist() == [[5, 4, 4], [7, 8, 9], [4, 4, 4]]
    assert backbone.pad([[]], 4).shape == (1, 0)


def test_embed_is_a_row_of_the_embedding_matrix(backbone):
    ids = torch.tensor([[3, 199], [0, 3]])
    assert torch.equal(backbone.embed(ids), backbone.llm.get_input_embeddings().weight[ids])


def test_cross_entropy_is_the_mean_over_real_tokens_of_the_whole_batch():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 7), torch.tensor([[1, 2, 3], [4, IGNORED, IGNORED]])
    each = [-logits[b, a].log_softmax(0)[labels[b, a]] for b, a in [(0, 0), (0, 1), (0, 2), (1, 0)]]
    assert torch.isclose(cross_entropy(logits, labels), torch.stack(each).mean())


def test_option_probabilities_leave_out_the_options_that_a_sample_has_not():
    scores = OptionScores(
        torch.tensor([[-2.0, -2.0, -6.0], [-1.0, -torch.inf, -torch.inf]]),
        torch.tensor([[2, 4, 6], [1, 1, 1]]),
        torch.zeros(2, 3, dtype=torch.bool),
    )
    assert scores.mean[0].tolist() == [-1.0, -0.5, -1.0]
    expected = torch.tensor([[-1.0, -0.5, -1.0]]).softmax(1)
    assert torch.equal(scores.probabilities()[:1], expected)
    assert scores.probabilities()[1].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(("steps", "read"), [(1, 0), (2, 1), (5, 1)])
def test_letters_are_read_at_the_second_step_where_there_is_one(steps, read):
    torch.manual_seed(0)
    scores = torch.randn(steps, 2, 10)
    found = Generation(torch.zeros(2, steps), ["", ""], scores).letters([7, 3])
    assert torch.equal(found, scores[read][:, [7, 3]])


def test_letters_need_the_scores():
    with pytest.raises(ValueError, match="scores=True"):
        Generation(torch.zeros(1, 1), [""], None).letters([1])


def test_greedy_scores_are_kept_on_request_only(backbone):
    prompt = tiny.crema("video", llm=backbone).prompt({}, tiny.batch(tiny.item(1), tiny.item(2)))
    assert backbone.generate(prompt, max_new_tokens=3).scores is None
    found = backbone.generate(prompt, max_new_tokens=3, scores=True)
    assert found.scores.shape[1:] == (2, tiny.VOCABULARY)
    assert len(found.texts) == 2
