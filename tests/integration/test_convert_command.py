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
from open_crema.model.files import read_model

SENSES = ("video", "depth", "normal")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """SenseQA's questions about depth and normals, and a BLIP-2 of random weights."""
    folder = tmp_path_factory.mktemp("paper-scale")
    types = ("depth_gap", "normal_odd")
    made = ("--n", "8", "--seed", "4", "--workers", "1", "--out", str(folder / "clips"))
    assert cli.main(["data", "make", "senseqa", *made, "--types", *types]) == 0
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    known = ("yes", "no", "left", "right", "middle", "is", "the", "on", *string.punctuation)
    words |= {word: 3 + i for i, word in enumerate(known)}
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
