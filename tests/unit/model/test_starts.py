"""How weights start: the Q-Former's "xavier", the fusion's "identity", adapters like another's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import tiny
from open_crema.config import AlignConfig, FusionConfig, QFormerConfig
from open_crema.errors import ConfigError, DataError
from open_crema.model.adapter import grid_code
from open_crema.model.crema import Crema
from open_crema.model.fusion import Fusion, QueryTokens
from open_crema.model.qformer import QFormer

SHAPE = {"layers": 2, "width": 64, "heads": 4, "ffn": 256, "encoder_width": 96, "cross_every": 2}


# The Q-Former.


def linears(init: str, **shape: int) -> dict[str, nn.Linear]:
    torch.manual_seed(0)
    made = QFormer(QFormerConfig(**(SHAPE | shape), init=init))
    return {n: m for n, m in made.named_modules() if isinstance(m, nn.Linear)}


def test_xavier_goes_by_fan_in_and_fan_out_and_by_what_a_layer_does():
    gains = set()
    for name, linear in linears("xavier").items():
        gain = 1.0
        if name in ("layers.0.cross.query", "layers.0.cross.key"):
            gain = 1.4
        elif name.rpartition(".")[2] in ("out", "down"):
            gain = 0.5
        bound = gain * math.sqrt(6 / (linear.in_features + linear.out_features))
        largest = float(linear.weight.detach().abs().max())
        assert 0.98 * bound < largest <= bound, name
        assert not linear.bias.any(), name
        gains.add(gain)
    assert gains == {0.5, 1.0, 1.4}


def test_bert_is_a_normal_of_one_width_everywhere_and_the_default():
    assert QFormerConfig().init == "bert"
    for width in (64, 128):
        for name, linear in linears("bert", width=width).items():
            assert float(linear.weight.detach().std()) == pytest.approx(0.02, rel=0.05), name
            assert not linear.bias.any(), name


def test_xavier_tells_inputs_apart_where_bert_hardly_does():
    """What it is there for: a fresh Q-Former whose output hangs on what it reads."""

    def spread(init: str) -> float:
        torch.manual_seed(0)
        qformer = QFormer(QFormerConfig(**SHAPE, init=init, dropout=0.0)).eval()
        queries, memory = 0.02 * torch.randn(4, 64), torch.randn(20, 9, 96)
        with torch.no_grad():
            out = qformer(queries, memory, torch.ones(20, 9, dtype=torch.bool))
        return float(out.std(dim=0).mean())

    assert spread("xavier") > 5 * spread("bert")


# The code of patches.


@pytest.mark.parametrize("side", [1, 2, 8, 16])
@pytest.mark.parametrize("extra", [0, 1])
def test_every_patch_has_a_code_of_its_own_and_the_class_token_none(side, extra):
    code = grid_code(side * side + extra, 32)
    assert code.shape == (side * side + extra, 32)
    assert not code[:extra].any()
    patches = code[extra:]
    apart = torch.cdist(patches, patches) + 9 * torch.eye(len(patches))
    assert float(apart.min()) > 0.1
    torch.testing.assert_close(patches.norm(dim=1), torch.full((side * side,), 4.0))


def test_rows_and_columns_change_places_with_the_halves_of_the_code():
    code = grid_code(65, 16)[1:].view(8, 8, 16)
    rows, columns = code.split(8, dim=2)
    assert torch.equal(rows, columns.transpose(0, 1))
    assert torch.equal(rows[:, :1].expand(-1, 8, -1), rows)  # of one row all the same
    assert not torch.equal(rows[0, 0], rows[1, 0])


def test_neighbours_are_nearer_than_what_is_far_off():
    code = grid_code(64, 32).view(8, 8, 32)
    near = (code[3, 3] - code[3, 4]).norm()
    assert near < (code[3, 3] - code[3, 7]).norm()
    assert near < (code[3, 3] - code[7, 7]).norm()


@pytest.mark.parametrize(("keys", "width"), [(7, 16), (66, 16), (3, 16), (64, 18)])
def test_tokens_that_make_no_square_of_patches_are_refused(keys, width):
    with pytest.raises(DataError, match=rf"{keys} tokens of width {width} are no square.*use none"):
        grid_code(keys, width)


def test_only_pictures_have_places():
    """The code is added to what the Q-Former reads, after the norm; sound and points have none."""
    plain = tiny.crema("video", "audio", "point", "thermal")
    placed = tiny.crema("video", "audio", "point", "thermal", qformer={"positions": "grid"})
    for sense in plain.senses:
        tokens = torch.randn(2, 5, tiny.WIDTHS[sense])
        with torch.no_grad():
            more = placed.adapter(sense).memory(tokens) - plain.adapter(sense).memory(tokens)
        expected = grid_code(5, 12) if sense in ("video", "thermal") else torch.zeros(5, 12)
        torch.testing.assert_close(more, expected.expand(2, -1, -1))


def test_with_places_the_order_of_patches_matters():
    batch = tiny.batch(tiny.item(0, video=2))
    turned = tiny.batch(tiny.item(0, video=2))
    turned.senses["video"].tokens[:] = turned.senses["video"].tokens.flip(2)
    for positions, same in (("none", True), ("grid", False)):
        model = tiny.crema("video", qformer={"positions": positions})
        with torch.no_grad():
            a, b = (model.query("video", x.senses["video"]).tokens for x in (batch, turned))
        assert torch.allclose(a, b, atol=1e-4) == same


# The fusion.


def query(seed: int, segments: int = 2, width: int = 8, scale: float = 0.1) -> QueryTokens:
    noise = torch.Generator().manual_seed(seed)
    edges = torch.linspace(0, 8, segments + 1, dtype=torch.float64)
    times = torch.stack([edges[:-1], edges[1:]], dim=1)[None]
    tokens = scale * torch.randn(1, segments, 3, width, generator=noise)
    return QueryTokens(tokens, torch.ones(1, segments, dtype=torch.bool), times)


def fusion_of(*senses: str, width: int = 8, **config: str) -> Fusion:
    torch.manual_seed(0)
    return Fusion(senses, width, FusionConfig(**config), AlignConfig(), queries=3)


def test_an_identity_hands_on_rows_as_small_as_embeddings_nearly_as_they_are():
    """silu(2 x) = x + x^2 - ...: LLMs' embedding rows have entries of about 0.1."""
    fusion = fusion_of("video", "thermal", init="identity")
    main, assistant = query(0), query(1)
    with torch.no_grad():
        fused = fusion.merge(main, {"thermal": assistant})
    x = assistant.tokens
    torch.testing.assert_close(fused, functional.silu(2 * x))
    assert float((fused - x).norm() / x.norm()) < 0.2
    assert float(functional.cosine_similarity(fused, x, dim=3).min()) > 0.95


def test_an_identity_adds_up_what_several_senses_say():
    fusion = fusion_of("video", "flow", "thermal", init="identity")
    main, one, other = query(0), query(1), query(2)
    with torch.no_grad():
        fused = fusion.merge(main, {"flow": one, "thermal": other})
    torch.testing.assert_close(fused, functional.silu(2 * (one.tokens + other.tokens)))


def test_fan_in_is_the_default_and_is_no_identity():
    fusion = fusion_of("video", "flow", "thermal")
    bound = (2 * 8) ** -0.5
    for weight in (*fusion.blocks.values(), fusion.bias):
        assert 0.7 * bound < float(weight.detach().abs().max()) <= bound
    drawn = [fusion_of("video", "audio", "thermal", init=i) for i in ("fan-in", "identity")]
    assert not torch.equal(drawn[0].blocks["audio"], drawn[1].blocks["audio"])
    assert torch.equal(drawn[1].blocks["audio"], 2 * torch.eye(8))


def test_both_starts_draw_as_many_numbers():
    """So that what is drawn after the fusion does not hang on how it starts."""
    after = []
    for init in ("fan-in", "identity"):
        fusion_of("video", "flow", "thermal", init=init)
        after.append(torch.rand(3))
    assert torch.equal(*after)


@pytest.mark.parametrize(("init", "scale"), [("identity", 2.0), ("fan-in", 0.0)])
@pytest.mark.parametrize("senses", [("video",), ("video", "audio")])
def test_a_fusion_grows_as_it_starts(init, scale, senses):
    fusion = fusion_of(*senses, init=init)
    before = {name: block.detach().clone() for name, block in fusion.blocks.items()}
    fusion.add("thermal", torch.zeros(1))
    assert torch.equal(fusion.blocks["thermal"], scale * torch.eye(8))
    assert all(torch.equal(fusion.blocks[name], block) for name, block in before.items())
    if senses == ("video",):
        assert not fusion.bias.any()


def test_a_sense_that_led_alone_gets_its_block_too():
    fusion = fusion_of("thermal", init="identity")
    fusion.add("video", torch.zeros(1))
    assert list(fusion.blocks) == ["thermal"]
    assert torch.equal(fusion.blocks["thermal"], 2 * torch.eye(8))


# Adapters that start as another sense's.


def grown(like: str | None, sense: str = "thermal", **options: object) -> tuple[Crema, Crema]:
    """The model before and after."""
    torch.manual_seed(9)
    before, after = tiny.crema("video", "audio", **options), tiny.crema("video", "audio", **options)
    after.add_sense(sense, tiny.WIDTHS[sense], like=like)
    return before, after


def test_a_new_sense_starts_as_the_one_that_it_is_like():
    _, model = grown("video")
    old, new = (dict(model.adapter(s).named_parameters()) for s in ("video", "thermal"))
    assert old.keys() == new.keys()
    assert all(torch.equal(new[name], old[name]) for name in old)
    assert all(new[name].data_ptr() != old[name].data_ptr() for name in old)
    batch = tiny.batch(tiny.item(0, video=2)).senses["video"]
    with torch.no_grad():
        assert torch.equal(model.query("video", batch).tokens, model.query("thermal", batch).tokens)
    assert model.untrained == ["thermal"]


def test_what_has_another_shape_stays_as_it_is_drawn():
    """Points come in another width and without a norm; queries, LoRA and projection fit."""
    _, plain = grown(None, "point")
    _, model = grown("audio", "point")
    old, drawn = (dict(m.adapter(s).named_parameters()) for m, s in
                  ((model, "audio"), (plain, "point")))  # fmt: skip
    taken = set()
    for name, parameter in model.adapter("point").named_parameters():
        if torch.equal(parameter, old[name]):
            taken.add(name)
        else:
            assert torch.equal(parameter, drawn[name]), name
    left = set(dict(model.adapter("point").named_parameters())) - taken
    assert left == {"input_projection.weight"}
    assert {"queries", "projection.weight", "lora.0.query.a", "lora.1.value.b"} <= taken


@pytest.mark.parametrize("init", ["fan-in", "identity"])
@pytest.mark.parametrize("like", [None, "video"])
def test_outputs_stay_as_they_are_until_it_is_trained(init, like):
    before, after = grown(like, fusion={"init": init})
    batch = tiny.batch(
        tiny.item(0, video=2, audio=1, thermal=2), tiny.item(1, audio=2), tiny.item(2, thermal=1)
    )
    with torch.no_grad():
        assert torch.equal(before(batch).logits, after(batch).logits)


def test_no_sense_of_that_name_to_start_as():
    model = tiny.crema("video", "audio")
    with pytest.raises(ConfigError, match=r"no adapter of 'flow' to start 'thermal' as; the model "
                       r"has video, audio"):  # fmt: skip
        model.add_sense("thermal", 12, like="flow")
    assert model.senses == ["video", "audio"]
