"""Parameter counts: the published ones at full size, exactly, and any other size by formula."""

import json
from io import StringIO
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

import tiny
from open_crema import config, cost, modality, weights
from open_crema.backbones.decoder_only import DecoderOnly
from open_crema.config import Config, ModelConfig
from open_crema.errors import ConfigError, WeightsError
from open_crema.modality import Modality
from open_crema.model.crema import Crema
from open_crema.model.files import save_pretrained

LETTERS = {m.name[0]: m.name for m in modality.BUILT_INS if m.name not in ("touch", "thermal")}
NORM_OF_POINTS = 2_816  # counted in the published figures, applied nowhere


def full_size(letters: str, fusion: str = "self-gated", rank: int = 64) -> ModelConfig:
    return config.from_dict(
        {
            "senses": [LETTERS[letter] for letter in letters],
            "llm": "flan-t5-xl",
            "encoders": {"vision": "eva-vit-g", "audio": "beats-iter3", "point": "points-3dllm"},
            "qformer": {
                "layers": 12,
                "width": 768,
                "heads": 12,
                "ffn": 3072,
                "queries": 32,
                "encoder_width": 1408,
            },
            "lora": {"rank": rank},
            "fusion": {"kind": fusion},
        },
        schema=ModelConfig,
    )


def test_parts_of_an_adapter_at_full_size():
    counted = cost.count(full_size("vafdn"))
    visual = cost.SenseCost(2_359_296, 24_576, 0, 2_816, 1_574_912)
    assert visual.total == 3_961_600
    for sense in ("video", "flow", "depth", "normal"):
        assert counted.senses[sense] == visual
    assert counted.senses["audio"] == cost.SenseCost(2_359_296, 24_576, 1_082_752, 2_816, 1_574_912)
    assert counted.senses["audio"].total == 5_044_352


@pytest.mark.parametrize(
    ("letters", "published"),
    [("va", 4_196_352), ("vaf", 8_390_656), ("vafd", 12_584_960), ("vafdn", 16_779_264)],
)
def test_fusion_at_full_size(letters, published):
    assert cost.count(full_size(letters)).fusion == published
    assert cost.count(full_size(letters, "concat")).fusion == 0


# The published counts without, and with, what the released code counts and never uses; the former
# still hold the norm of the points.
@pytest.mark.parametrize(
    ("letters", "fusion", "published", "with_dead"),
    [
        ("v", "concat", 3_961_600, 6_320_896),
        ("v", "self-gated", 3_961_600, 6_320_896),
        ("va", "concat", 9_005_952, 13_724_544),
        ("vaf", "self-gated", 21_358_208, 28_436_096),
        ("vafdn", "self-gated", 37_670_016, 49_466_496),
        ("vp", "concat", 7_923_200, 12_641_792),
        ("vpdn", "self-gated", 28_431_360, 37_868_544),
        ("vf", "concat", 7_923_200, 12_641_792),
        ("vfd", "self-gated", 20_275_456, 27_353_344),
        ("vfdn", "self-gated", 28_431_360, 37_868_544),
    ],
)
def test_published_trainable_counts(letters, fusion, published, with_dead):
    counted = cost.count(full_size(letters, fusion))
    assert counted.trainable == published - NORM_OF_POINTS * ("p" in letters)
    assert counted.trainable + sum(counted.uncounted.values()) == with_dead


@pytest.mark.parametrize(
    ("letter", "rank", "published"),
    [
        ("a", 32, 3_864_704),
        ("a", 64, 5_044_352),
        ("a", 128, 7_403_648),
        ("p", 32, 2_781_952),
        ("p", 64, 3_961_600),
        ("p", 128, 6_320_896),
    ],
)
def test_published_counts_of_the_lora_rank(letter, rank, published):
    counted = cost.count(full_size(letter, rank=rank))
    assert counted.trainable == published - NORM_OF_POINTS * (letter == "p")
    assert counted.trainable + sum(counted.uncounted.values()) == published
    assert counted.fusion == 0


def test_published_frozen_counts():
    counted = cost.count(full_size("vafpdn"))
    assert counted.llm_parameters == 2_849_757_184
    assert counted.qformer == 105_137_664
    assert counted.encoders == {
        "eva-vit-g": 985_894_528,  # once, although four senses share it
        "beats-iter3": 90_311_792,
        "points-3dllm": 0,
    }
    assert counted.frozen == 2_849_757_184 + 105_137_664 + 985_894_528 + 90_311_792


def test_encoders_that_no_sense_uses_are_not_counted():
    assert list(cost.count(full_size("a")).encoders) == ["beats-iter3"]


def test_the_embedded_scale_is_that_of_its_weights():
    counted = cost.count(Config().model)
    assert counted.llm_parameters == weights.lookup("smollm2-135m-instruct-q4_1").parameters
    assert counted.encoders == {"dinov2-small": 22_056_192, "yamnet": 3_729_481}


def test_a_trained_qformer_moves_from_frozen_to_trainable():
    frozen = cost.count(full_size("v"))
    trained = cost.count(full_size("v"), train_qformer=True)
    assert trained.trainable - frozen.trainable == 105_137_664
    assert frozen.frozen - trained.frozen == 105_137_664
    assert cost.to_dict(trained)["trainable"]["qformer"] == 105_137_664
    assert cost.to_dict(trained)["frozen"]["qformer"] == 0


def test_a_sense_that_skips_lora_has_none():
    skipping = config.from_dict(
        {"senses": ["video", "flow"], "lora": {"skip": ["video"]}}, schema=ModelConfig
    )
    counted = cost.count(skipping)
    assert counted.senses["video"].lora == 0
    assert counted.senses["flow"].lora > 0
    assert counted.uncounted["LoRA of senses that skip it"] == counted.senses["flow"].lora


def test_everything_is_on_the_meta_device():
    model = cost.skeleton(full_size("vafpdn"))
    assert sum(p.numel() for p in model.parameters()) > 2.9e9
    assert all(p.is_meta for p in model.parameters())
    assert all(b.is_meta for b in model.buffers())


def test_counting_billions_takes_no_memory():
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def kilobytes(key: str) -> int:
        return next(int(li.split()[1]) for li in status.read_text().splitlines() if key in li)

    cost.count(Config().model)  # imports
    try:
        reset.write_text("5")  # the peak starts again from the present size
    except OSError:
        pytest.skip("needs Linux's /proc/self/clear_refs to see the peak of one call")
    before = kilobytes("VmRSS")
    assert cost.count(full_size("vafpdn")).frozen > 4e9
    assert kilobytes("VmHWM") - before < 200_000  # in fp32 it would be 16,000,000


TINY_LLAMA = {
    "vocab_size": 30,
    "hidden_size": 12,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


class NoTokenizer:
    pad_token_id = eos_token_id = 0

    def encode(self, text, *, add_special_tokens):
        return []

    def decode(self, token_ids, *, skip_special_tokens):
        return ""


@pytest.fixture(scope="module")
def tiny_llm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llm")
    LlamaConfig(**TINY_LLAMA, tie_word_embeddings=False).save_pretrained(folder)
    return folder


FUSION_SIZES = {  # of the widths of LLM (d), Q-Former (h), and queries: of one sense, and shared
    "self-gated": lambda d, q, h: (d * d, d),
    "concat": lambda d, q, h: (0, 0),
    "ungated": lambda d, q, h: (d * d, d),
    "linear": lambda d, q, h: (q * q, q),
    "mixture-of-experts": lambda d, q, h: ((h + 1) * h, d),
    "cross-attention": lambda d, q, h: (d, d + q * d + 4 * d * d),
}


@settings(max_examples=40)
@given(
    senses=st.lists(st.sampled_from([m.name for m in modality.BUILT_INS]), min_size=1, unique=True),
    rank=st.integers(1, 40),
    heads=st.integers(1, 4),
    head=st.integers(1, 9),
    ffn=st.integers(1, 40),
    layers=st.integers(1, 5),
    cross_every=st.integers(1, 3),
    queries=st.integers(1, 9),
    encoder_width=st.sampled_from([384, 768, 1024, 1408, 7]),
    vision=st.sampled_from(["dinov2-small", "eva-vit-g"]),
    fusion=st.sampled_from(sorted(FUSION_SIZES)),
    skip=st.booleans(),
)
def test_any_size_is_what_a_built_model_has_and_what_the_formula_says(
    tiny_llm,
    senses,
    rank,
    heads,
    head,
    ffn,
    layers,
    cross_every,
    queries,
    encoder_width,
    vision,
    fusion,
    skip,
):
    width = heads * head
    chosen = config.from_dict(
        {
            "senses": senses,
            "llm": str(tiny_llm),
            "encoders": {"vision": vision},
            "qformer": {
                "layers": layers,
                "width": width,
                "heads": heads,
                "ffn": ffn,
                "queries": queries,
                "encoder_width": encoder_width,
                "cross_every": cross_every,
            },
            "lora": {"rank": rank, "skip": senses[:1] if skip else []},
            "fusion": {"kind": fusion},
        },
        schema=ModelConfig,
    )
    llm = LlamaForCausalLM(LlamaConfig(**TINY_LLAMA, tie_word_embeddings=False))
    built = Crema(chosen, DecoderOnly(llm, NoTokenizer()))
    counted = cost.count(chosen)
    assert counted.trainable == sum(p.numel() for p in built.parameters() if p.requires_grad)
    encoders = sum(n for n in counted.encoders.values() if n)
    assert counted.frozen - encoders == sum(
        p.numel() for p in built.parameters() if not p.requires_grad
    )

    widths = {"audio": 1024, "point": 384}
    visual = 384 if vision == "dinov2-small" else 1408
    for sense, own in counted.senses.items():
        wide = widths.get(sense, visual)
        lora = 0 if skip and sense == senses[0] else layers * 2 * 2 * width * rank
        projected = 0 if wide == encoder_width else (wide + 1) * encoder_width
        norm = 0 if sense == "point" else 2 * encoder_width
        assert own == cost.SenseCost(lora, queries * width, projected, norm, (width + 1) * 12)
    assistants = len(senses) - 1
    one, shared = FUSION_SIZES[fusion](12, queries, width)
    always = fusion == "cross-attention"  # its prompts and projections are the base's
    assert counted.fusion == one * assistants + shared * (assistants > 0 or always)
    crossing = -(-layers // cross_every)
    attention = 4 * (width + 1) * width + 2 * width
    cross = 2 * (width + 1) * width + 2 * (encoder_width + 1) * width + 2 * width
    dense = (width + 1) * ffn + (ffn + 1) * width + 2 * width
    assert counted.qformer == 2 * width + layers * (attention + dense) + crossing * cross


def test_the_order_of_listing_changes_nothing():
    one = cost.count(full_size("vafpdn"))
    assert cost.count(full_size("npvdfa")) == one
    assert list(one.senses) == ["video", "audio", "flow", "depth", "normal", "point"]


@pytest.fixture
def third_party(monkeypatch):
    class Gyroscope:
        width = 6

    monkeypatch.setitem(
        modality._registry,
        "imu",
        Modality("imu", "Motion Sensor", Gyroscope, "nowhere:reader", alignment="overlap"),
    )


def test_an_encoder_of_unknown_size_is_said_to_be_unknown(third_party):
    chosen = config.from_dict({"senses": ["video", "imu"]}, schema=ModelConfig)
    counted = cost.count(chosen)
    assert counted.senses["imu"].input_projection == 7 * 384
    assert counted.encoders == {"dinov2-small": 22_056_192, "imu's own": None}
    assert counted.frozen == 22_056_192 + counted.qformer + counted.llm_parameters
    assert cost.to_dict(counted)["frozen"]["encoders"]["imu's own"] is None
    assert "unknown" in shown(cost.table(counted))


T5_SIZE = {
    "vocab_size": 50,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 32,
    "num_layers": 1,
    "num_heads": 2,
    "feed_forward_proj": "gated-gelu",
}


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("written_by", ["hub", "transformers"])
def test_the_head_of_a_local_t5_is_counted_where_it_is_its_own(tmp_path, apart, written_by):
    made = T5Config(**T5_SIZE, tie_word_embeddings=not apart)
    tied = T5ForConditionalGeneration(made).num_parameters()
    if written_by == "transformers":
        made.save_pretrained(tmp_path)
    else:
        plain = {"model_type": "t5", **T5_SIZE, "tie_word_embeddings": not apart}
        (tmp_path / "config.json").write_text(json.dumps(plain))
    chosen = config.from_dict({"llm": str(tmp_path)}, schema=ModelConfig)
    assert cost.count(chosen).llm_parameters == tied + apart * 50 * 16


def test_the_largest_named_llm():
    chosen = config.from_dict({"llm": "flan-t5-xxl"}, schema=ModelConfig)
    assert cost.count(chosen).llm_parameters == 11_135_332_352
    assert cost.count(chosen).senses["video"].llm_projection == (256 + 1) * 4096


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "not a transformers folder"),
        ("", "not a transformers folder"),
        ("{", "not a transformers folder"),
        ("[]", "not a transformers folder"),
        ("{}", "no language model that can be counted"),
        ('{"model_type": "vit"}', "no language model that can be counted"),
        ('{"model_type": "unheard-of"}', "no language model that can be counted"),
        ('{"model_type": "llama", "num_attention_heads": 0}', "no language model"),
        ('{"model_type": ["t5"]}', "no language model that can be counted"),
        ('{"model_type": "llama", "hidden_size": "wide"}', "no language model that can be counted"),
    ],
)
def test_a_folder_that_is_no_llm_is_named(tmp_path, text, said):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=said) as error:
        cost.count(config.from_dict({"llm": str(tmp_path)}, schema=ModelConfig))
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"llm": "flan-t5-lx"}, "did you mean 'flan-t5-xl'"),
        ({"llm": "gpt"}, "unknown model.llm 'gpt'"),
        ({"encoders": {"vision": "eva-vit"}}, "did you mean 'eva-vit-g'"),
        ({"encoders": {"vision": "yamnet"}}, "model.encoders.vision is 'yamnet'"),
    ],
)
def test_unknown_names(chosen, said):
    with pytest.raises(ConfigError, match=said):
        cost.count(config.from_dict(chosen, schema=ModelConfig))


def shown(printed, width: int = 80) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(printed)
    return capture.get()


def test_the_table_fits_80_columns_with_every_number_whole():
    counted = cost.count(full_size("vafpdn"))
    text = shown(cost.table(counted))
    numbers = [counted.trainable, counted.frozen, counted.fusion, counted.qformer]
    numbers += [n for own in counted.senses.values() for n in (own.total, own.lora, own.queries)]
    numbers += [counted.llm_parameters, *counted.encoders.values()]
    for number in numbers:
        assert f" {number:,}" in text
    for name in ("video", "point", "eva-vit-g", "flan-t5-xl", "Q-Former", "fusion"):
        assert name in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(("qformer", "trained"), [("frozen", False), ("always", True)])
def test_main_table_follows_the_run(qformer, trained):
    run = config.from_dict({"train": {"qformer": qformer, "strategy": "joint"}})
    lines = shown(cost.main_table(run)).splitlines()
    first = [line.split()[0] for line in lines if line.strip()]
    assert first.count("Q-Former") == 1
    assert (first.index("Q-Former") < first.index("trained")) == trained


def test_scope_own_counts_what_is_new_alone(tmp_path):
    new = tiny.config("video", "audio", "flow")
    run = config.from_dict(
        {
            "model": config.to_dict(new),
            "train": {"scope": "own", "init": str(tmp_path / "model")},
        }
    )
    with pytest.raises(WeightsError, match="no such file"):
        cost.of_run(run)
    model = tiny.crema("video", "flow")
    save_pretrained(model, tmp_path / "model")
    counted, whole = cost.of_run(run), cost.count(new)
    assert counted.published == ("video", "flow")
    width = 576  # of the LLM that the configuration names
    assert counted.trainable == counted.senses["audio"].total + width * width
    assert counted.trainable + counted.frozen == whole.trainable + whole.frozen
    plain = cost.to_dict(counted)
    assert list(plain["trainable"]["senses"]) == ["audio"]
    assert list(plain["frozen"]["senses"]) == ["video", "flow"]
    assert plain["frozen"]["fusion"] == width * width + width
    lines = [line.split()[0] for line in shown(cost.main_table(run)).splitlines() if line.split()]
    assert lines.index("audio") < lines.index("trained") < lines.index("video")


def test_the_dictionary_is_json_and_adds_up():
    counted = cost.count(full_size("vpdn"))
    plain = cost.to_dict(counted)
    assert json.loads(json.dumps(plain)) == plain
    trained, frozen = plain["trainable"], plain["frozen"]
    assert trained["total"] == counted.trainable == 28_428_544
    assert trained["total"] == trained["fusion"] + trained["qformer"] + sum(
        sense["total"] for sense in trained["senses"].values()
    )
    for sense in trained["senses"].values():
        assert sense["total"] == sum(n for part, n in sense.items() if part != "total")
    assert frozen["total"] == frozen["qformer"] + frozen["llm"]["parameters"] + sum(
        frozen["encoders"].values()
    )
    assert frozen["llm"]["name"] == "flan-t5-xl"


def test_no_random_state_is_touched():
    torch.manual_seed(0)
    first = torch.rand(3)
    torch.manual_seed(0)
    cost.count(Config().model)
    assert torch.equal(torch.rand(3), first)


def test_the_published_counts_of_sets_with_points_are_shown_beside_what_is_trained():
    path = Path(__file__).resolve().parents[3] / "configs/paper/sqa3d_vpdn.yaml"
    counted = cost.count(config.load(path).model)
    assert counted.trainable == 28_428_544
    shown = cost.to_dict(counted)["with_uncounted"]
    assert list(shown.values()) == [28_431_360, 37_868_544]
    printed = StringIO()
    Console(file=printed, width=80).print(cost.table(counted))
    for total in ("28,428,544", "28,431,360 with the unused norm", "37,868,544 with the unused"):
        assert total in printed.getvalue()
