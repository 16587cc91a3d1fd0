"""Multiply-accumulates: against the reference's table, and a count by hand."""

import json

import pytest
import torch

import tiny
from open_crema import config, cost
from open_crema.backbones import ARCHITECTURES
from open_crema.config import ModelConfig
from open_crema.cost import Tokens
from open_crema.cost.operations import beats_operations, counted, prompt_tokens
from open_crema.cost.paper import full_size

# The released class's forward on the meta device, 10^9: all, LLM encoder, decoder, tokens.
REFERENCE = {
    ("V", None): (1325, 216, 41, 184),
    ("VA", "concat"): (1477, 293, 54, 248),
    ("VAF", None): (2659, 390, 70, 328),
    ("VAFDN", None): (4795, 390, 70, 328),
    ("VF", "concat"): (2573, 371, 67, 312),
    ("VFD", None): (3664, 390, 70, 328),
    ("VFDN", None): (4732, 390, 70, 328),
    ("VFDN", "concat"): (5078, 689, 119, 568),
    ("VP", "concat"): (1445, 259, 48, 220),
    ("VPDN", None): (3734, 390, 70, 328),
}


@pytest.mark.parametrize(("letters", "kind"), REFERENCE)
def test_full_size_agrees_with_the_released_code(letters, kind):
    whole, encoder, decoder, tokens = REFERENCE[letters, kind]
    found = cost.operations(full_size(letters, kind=kind))
    assert found.prompt_tokens == tokens
    assert found.total / 1e9 == pytest.approx(whole, rel=0.001)
    assert found.llm_prompt / 1e9 == pytest.approx(encoder, rel=0.01)
    assert found.llm_answer / 1e9 == pytest.approx(decoder, rel=0.015)


def by_hand(shape, lora, width, segments, keys, inside):
    """An adapter on the Q-Former. inside: width of the encoder's features."""
    q, w = shape["queries"], shape["width"]
    linear = shape["layers"] * q * (4 * w * w + 2 * w * shape["ffn"] + 2 * 2 * w * lora)
    attention = shape["layers"] * 2 * q * q * w
    crosses = -(-shape["layers"] // shape["cross_every"])
    cross = crosses * (2 * q * w * w + 2 * keys * shape["encoder_width"] * w + 2 * q * keys * w)
    projected = keys * inside * shape["encoder_width"] if inside != shape["encoder_width"] else 0
    return segments * (linear + attention + cross + projected + q * w * width)


def llama(layers, hidden, ffn, heads, kv, vocabulary, prompt, answer):
    head = hidden // heads

    def layers_of(length):
        each = length * (2 * hidden * hidden + 2 * hidden * kv * head + 3 * hidden * ffn)
        return layers * (each + 2 * length * length * hidden)

    first = layers_of(prompt)
    return first, layers_of(prompt + answer) - first + (answer + 1) * hidden * vocabulary


@pytest.mark.parametrize(("rank", "width", "queries"), [(4, 48, 5), (16, 32, 12)])
def test_any_other_size_agrees_with_a_count_by_hand(rank, width, queries, tmp_path):
    llm = {
        "model_type": "llama",
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    (tmp_path / "config.json").write_text(json.dumps(llm))
    shape = {
        "layers": 3,
        "width": width,
        "heads": 2,
        "ffn": 50,
        "queries": queries,
        "encoder_width": 40,
        "cross_every": 2,
    }
    chosen = config.from_dict(
        {
            "senses": ["video", "audio", "depth"],
            "llm": str(tmp_path),
            "qformer": shape,
            "lora": {"rank": rank},
        },
        schema=ModelConfig,
    )
    tokens = Tokens(frames=3, windows=2, label=2, text=17, answer=4)
    found = cost.operations(chosen, tokens)
    assert found.qformer["video"] == by_hand(shape, rank, 64, 3, 65, 384)
    assert found.qformer["depth"] == found.qformer["video"]
    assert found.qformer["audio"] == by_hand(shape, rank, 64, 2, 36, 1024)
    assert found.fusion == 2 * 3 * queries * 64 * 64
    assert found.prompt_tokens == 3 * (2 + queries) + 2 + 3 * queries + 17
    expected = llama(3, 64, 96, 4, 2, 300, found.prompt_tokens, 4)
    assert (found.llm_prompt, found.llm_answer) == expected
    parts = [*found.encoders.values(), *found.qformer.values(), found.fusion, *expected]
    assert found.total == sum(parts)


def test_two_layers_tell_all_of_them(tmp_path):
    """Flan-T5 is counted by its first two layers."""
    from open_crema.cost.operations import _llm, _llm_of
    from open_crema.cost.parameters import backbone_of

    small = {**ARCHITECTURES["flan-t5-xl"], "d_model": 64, "num_layers": 5, "num_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps({**small, "num_decoder_layers": 3}))
    name = str(tmp_path)
    assert _llm(name, 20, 3) == _llm_of(backbone_of(name), 20, 3)


def test_beats_agrees_with_the_released_code():
    assert 2 * beats_operations(256) / 1e9 == pytest.approx(48.6, abs=0.05)


LAYOUTS = {
    "packed": ({"layout": "packed"}, "concat", 4 * 36 + 4 * 36 + 2 * 36 + 40),
    "reference": ({"layout": "reference"}, "concat", 4 * (4 + 64) + 2 * 32 + 40),
}


@pytest.mark.parametrize(("prompt", "kind", "length"), LAYOUTS.values(), ids=LAYOUTS)
def test_the_length_of_the_prompt_follows_its_layout(prompt, kind, length):
    said = {"senses": ["video", "flow", "audio"], "qformer": {"queries": 32}, "prompt": prompt}
    chosen = config.from_dict({**said, "fusion": {"kind": kind}}, schema=ModelConfig)
    assert prompt_tokens(chosen, Tokens()) == length


@pytest.mark.parametrize("kind", ["concat", "self-gated", "linear"])
@pytest.mark.parametrize("placement", ["append", "add"])
@pytest.mark.parametrize("layout", ["packed", "reference"])
@pytest.mark.parametrize(
    "senses",
    [
        ["video"],
        ["video", "flow"],
        ["video", "audio"],
        ["video", "point"],
        ["video", "audio", "point", "depth"],
        ["audio"],
        ["point"],
    ],
    ids="+".join,
)
def test_the_length_of_the_prompt_is_that_of_a_real_one(senses, layout, placement, kind):
    model = tiny.crema(
        *senses,
        kind="encoder-decoder",
        fusion={"kind": kind, "placement": placement},
        prompt={"layout": layout},
    )
    model.backbone.encode = lambda text: [9] * (3 if text.endswith(": ") else 6)
    counts = {sense: {"audio": 2, "point": 1}.get(sense, 4) for sense in senses}
    batch = tiny.batch(tiny.item(0, **counts))
    with torch.no_grad():
        prompt = model.prompt(model.query_all(batch), batch)
    tokens = Tokens(frames=4, windows=2, label=3, text=6 + 1)  # one closes the question
    assert prompt_tokens(model.config, tokens) == prompt.mask.shape[1]
    if layout == "packed":
        assert prompt.mask.all()


def test_counted_is_half_of_torchs_count():
    a, b = torch.empty(3, 4, device="meta"), torch.empty(4, 5, device="meta")
    assert counted(lambda: a @ b) == 60
