"""BLIP-2 and released checkpoints, from their own files to a trained model and back."""

from __future__ import annotations

import json
import string

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import Blip2Config, Blip2ForConditionalGeneration, PreTrainedTokenizerFast

from open_crema import cli
from open_crema.experiment import load_run
from open_crema.model.files import read_model
from reference.weights import random_vit, random_weights

SENSES = ("video", "depth", "normal")
WORDS = ("yes", "no", "left", "right", "middle", "is", "the", "on", *string.punctuation)
RELEASED = {
    "num_query": 4,
    "rank": 2,
    "width": 32,
    "qf": {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 9,
    },
    "t5": {
        "vocab_size": 3 + len(WORDS),
        "d_model": 20,
        "d_kv": 5,
        "d_ff": 24,
        "num_layers": 1,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    },
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """SenseQA's questions about depth and normals, and a BLIP-2 of random weights."""
    folder = tmp_path_factory.mktemp("paper-scale")
    types = ("depth_gap", "normal_odd")
    made = ("--n", "8", "--seed", "4", "--workers", "1", "--out", str(folder / "clips"))
    assert cli.main(["data", "make", "senseqa", *made, "--types", *types]) == 0
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    words |= {word: 3 + i for i, word in enumerate(WORDS)}
    core = Tokenizer(WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = Blip2Config(
        vision_config={"hidden_size": 32, "image_size": 28, "patch_size": 14, **sizes},
        qformer_config={"hidden_size": 24, "encoder_hidden_size": 32, "vocab_size": 9, **sizes},
        text_config={
            "model_type": "t5",
            "vocab_size": len(words),
            "d_model": 20,
            "d_kv": 5,
            "d_ff": 24,
            "num_layers": 1,
            "num_heads": 4,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
        },
        num_query_tokens=4,
    )
    blip2 = Blip2ForConditionalGeneration(config)
    torch.nn.init.normal_(blip2.query_tokens)  # new ones are zeros, whose norm has no gradient
    blip2.save_pretrained(folder / "blip2")
    tokenizer.save_pretrained(folder / "blip2")
    return folder


@pytest.fixture(scope="module")
def start(place):
    named = ("--senses", ",".join(SENSES), "--rank", "2")
    assert cli.main(["convert", "blip2", str(place / "blip2"), str(place / "start"), *named]) == 0
    return place / "start"


def test_from_blip2_through_training_and_back(place, start, capsys):
    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert cli.main([str(a) for a in arguments]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    data = place / "clips/questions.jsonl"
    trained = [
        *("train", start / "run.yaml", f"train.init={start}", f"data.train={data}"),
        *(f"data.test={data}", f"data.store={place / 'store'}", "data.store_frames=2"),
        *("data.frames=2", "train.epochs=2", "train.batch_size=4", "train.exit.enabled=true"),
        # one that is always reached: the second epoch's gradient is above a hundredth of the first
        "train.exit.temperature=0.01",
    ]
    run(*trained, f"out={place / 'run'}")
    log = [json.loads(line) for line in (place / "run/log.jsonl").read_text().splitlines()]
    epochs = [line for line in log if line["kind"] == "epoch"]
    assert set(epochs[-1]["exited"]) == set(SENSES)
    model = place / "run/model"
    out = run("eval", model, "--json")
    assert json.loads(out)["expected"] == 8
    print(run("convert", "to-official", model, place / "back.pth"))
    order = "rgb,depth,norm"
    given = ("--llm", start / "llm", "--heads", "2")
    run("convert", "official", place / "back.pth", place / "again", "--order", order, *given)
    first, second = read_model(model), read_model(place / "again")
    assert second.base == first.base
    for sense in SENSES:
        assert second.adapters[sense].fingerprint == first.adapters[sense].fingerprint


def test_from_the_released_layout_through_training_and_back(place, capsys):
    """A whole checkpoint under the released code's names, dead tensors and all."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert cli.main([str(a) for a in arguments]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    order = ("rgb", "depth", "norm")
    draw = torch.Generator().manual_seed(2)
    state = random_weights(RELEASED, order, "espresso-concat", draw)
    state |= random_vit(width=32, side=2)
    torch.save({"model": state | {"rgb_gradsel_embed": torch.zeros(1, 9)}}, place / "released.pth")
    start = place / "released"
    sizes = ("--heads", 2, "--vision-heads", 2, "--tokenizer", place / "blip2")
    run("convert", "official", place / "released.pth", start, "--order", ",".join(order), *sizes)
    data = place / "clips/questions.jsonl"
    run(
        *("train", start / "run.yaml", f"train.init={start}", f"data.train={data}"),
        *(f"data.test={data}", f"data.store={place / 'store'}", "data.store_frames=2"),
        *("data.frames=2", "train.epochs=1", "train.batch_size=4", "train.exit.enabled=true"),
        *("model.loading.dtype=bf16", f"out={place / 'run2'}"),
    )
    log = [json.loads(line) for line in (place / "run2/log.jsonl").read_text().splitlines()]
    (epoch,) = [line for line in log if line["kind"] == "epoch"]
    assert epoch["exited"] == {}  # there is no earlier one to compare with
    model = place / "run2/model"
    assert json.loads(run("eval", model, "--json"))["expected"] == 8
    assert load_run(model)[0].model.loading.dtype == "bf16"
    run("convert", "to-official", model, place / "trained.pth")
    back = torch.load(place / "trained.pth", weights_only=True)["model"]
    left = ("t5_model.", "visual_encoder.", "Qformer.bert.embeddings.position_ids")
    assert set(back) == {k for k in state if not k.startswith(left)}
    moved = {k for k, tensor in back.items() if not torch.equal(tensor, state[k])}
    trained = ("query_tokens_", "t5_proj_", "ln_", "fusion.")
    assert moved
    assert all(k.startswith(trained) or ".w_" in k for k in moved)
    for one in order:
        assert {f"query_tokens_{one}", f"t5_proj_{one}.weight"} <= moved


def test_what_was_dropped_and_allowed_is_printed(place, start, tmp_path, capsys):
    back = tmp_path / "start.pth"
    assert cli.main(["convert", "to-official", str(start), str(back)]) == 0
    state = torch.load(back, weights_only=True)["model"]
    assert any(name.startswith("visual_encoder.") for name in state)
    state |= {"rgb_gradsel_embed": torch.zeros(1, 3), "mine": torch.zeros(2)}
    torch.save({"model": state}, back)
    arguments = ["convert", "official", str(back), str(tmp_path / "m"), "--order", "rgb,depth,norm"]
    sizes = ["--heads", "2", "--vision-heads", "2"]
    capsys.readouterr()
    assert cli.main([*arguments, *sizes]) == 2
    assert "unexpected mine" in capsys.readouterr().err
    assert cli.main([*arguments, *sizes, "--allow", "mine"]) == 0
    printed = capsys.readouterr().out
    assert "1 dropped, not used by the method: rgb_gradsel_embed" in printed
    assert "1 unexpected, left out: mine" in printed


def test_a_model_that_the_released_code_cannot_be_is_refused(tmp_path, capsys):
    from importlib.resources import files

    base = str(files("open_crema") / "assets/base")
    assert cli.main(["convert", "to-official", base, str(tmp_path / "x.pth")]) == 2
    assert "no modality for touch, thermal" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
