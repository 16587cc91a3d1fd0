"""BEATs of golden files: spectrogram in, features out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from golden.official import Golden
from open_crema.encoders.beats import BeatsModel


def test_features_of_the_file(case_file: Path):
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
