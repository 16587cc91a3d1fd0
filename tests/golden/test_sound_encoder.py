"""BEATs of golden files: spectrogram in, features out, as it is and converted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from golden.official import Golden
from open_crema import convert
from open_crema.encoders.beats import Beats, BeatsModel


def test_features_of_the_file(case_file: Path, tmp_path: Path):
    golden = Golden.read(case_file)
    prefix = "audio_encoder.model."
    own = {k.removeprefix(prefix): t for k, t in golden.group("sd/").items() if prefix in k}
    if not own or "in/audio" not in golden.tensors:
        pytest.skip("the file holds no BEATs, or no spectrogram")
    model = BeatsModel(own).eval()
    model.load_state_dict(own)
    sound = golden.tensors["in/audio"]
    with torch.inference_mode():
        found = model(sound.flatten(0, 1)).unflatten(0, sound.shape[:2])
    assert (found - golden.tensors["raw/audio"]).abs().max() <= 1e-5
    # By itself, as microsoft/unilm publishes one.
    torch.save({"cfg": golden.info["size"]["beats"], "model": own}, tmp_path / "beats.pt")
    convert.from_beats(tmp_path / "beats.pt", tmp_path / "beats")
    with torch.inference_mode():
        same = Beats(tmp_path / "beats").model(sound.flatten(0, 1)).unflatten(0, sound.shape[:2])
    assert torch.equal(same, found)
