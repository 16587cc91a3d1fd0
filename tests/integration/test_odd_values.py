"""Any value in any place: the command works, or refuses in one line."""

from __future__ import annotations

import json
import random

import pytest
from command_line import QUESTION, write_lines, write_yaml

from open_crema import config
from tiny import one_seeded_thread  # noqa: F401

pytestmark = pytest.mark.usefixtures("stand_ins")


ODD = (None, -1, 1.5, float("nan"), "", "x", "\0", [], {}, ["video"], {"a": 1}, True, "\U0001f600")


@pytest.mark.parametrize("seed", range(3))
class TestOddValues:
    """Any value in any place: the command works, or refuses in one line."""

    def mutants(self, data, seed, count):
        dice = random.Random(seed)
        for _ in range(count):
            mutant = json.loads(json.dumps(data))
            *above, key = dice.choice(list(places(mutant)))
            holder = mutant
            for step in above:
                holder = holder[step]
            if dice.random() < 0.2:
                del holder[key]
            else:
                holder[key] = dice.choice(ODD)
            yield mutant

    def check(self, ran):
        if ran.code:
            ran.refused(alone=False)

    def test_in_a_configuration(self, crema, place, seed):
        whole = config.to_dict(config.load(place / "run.yaml"))
        for mutant in self.mutants(whole, seed, 40):
            self.check(crema("cost", write_yaml(place / "odd.yaml", mutant)))

    def test_in_a_question(self, crema, place, model, seed):
        media = {"audio": "sound.wav"}
        whole = {**QUESTION, "id": "a", "media": media, "options": ["red", "blue"], "type": "b"}
        for mutant in self.mutants(whole, seed, 15):
            odd = write_lines(place / "odd.jsonl", mutant)
            self.check(crema("eval", model, "--data", odd))

    @pytest.mark.parametrize("part", ["config.json", "adapters/audio/config.json"])
    def test_in_a_model(self, crema, place, model, part, seed):
        whole = json.loads((model / part).read_text())
        for mutant in self.mutants(whole, seed, 15):
            (model / part).write_text(json.dumps(mutant))
            self.check(crema("ask", place / "clip.mp4", "What is it?", "--model", model))

    @pytest.mark.parametrize("part", ["qformer.safetensors", "adapters/audio/adapter.safetensors"])
    def test_in_a_tensor_file(self, crema, place, model, part, seed):
        dice = random.Random(seed)
        whole = (model / part).read_bytes()
        for _ in range(10):
            odd = bytearray(whole)
            odd[dice.randrange(min(len(odd), dice.choice([8, 400])))] = dice.randrange(256)
            (model / part).write_bytes(odd)
            self.check(crema("ask", place / "clip.mp4", "What is it?", "--model", model))


def places(data, above=()):
    """The way to each key of nested data."""
    keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    for key in keys:
        yield (*above, key)
        yield from places(data[key], (*above, key))
