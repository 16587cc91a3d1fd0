"""Frozen YAMNet over a sound track: tokens of 0.32 s in two frequency bands."""

from __future__ import annotations

import csv
import json
import math
import tempfile
import zipfile
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from open_crema import weights
from open_crema.encoders.points import position_code
from open_crema.errors import MediaError
from open_crema.features import Features

if TYPE_CHECKING:
    import onnxruntime

    from open_crema.media import Audio

Array = npt.NDArray[np.float32]

NAME = "yamnet-w8a8"
RATE = 16_000
FRAME, HOP, FFT = 400, 160, 512  # 25 ms and 10 ms in samples
MELS, LOWEST, HIGHEST = 64, 125.0, 7500.0
LOG_OFFSET = 0.001
PATCH = 96  # frames: YAMNet looks at 0.96 s at a time
STEPS, BANDS = 3, 2  # the grid of the last layer over one patch
STEP = 0.32  # seconds
SHORTEST_TAIL = 0.48  # seconds of sound that make a window of their own
CODE_SCALE = 0.1
LAST = "/model/layer14/pointwise_conv/relu/Relu_output_0_q"


def fetch() -> Path:
    """The folder of the cut ONNX graph, downloaded first where missing. Raises WeightsError."""
    return weights.ensure(NAME, _convert)


class Yamnet:
    """Mono sound at 16 kHz to ``[S, K, 1024]`` tokens of S windows of ``window`` seconds.

    A window is covered by evenly spread patches of 0.96 s, the length YAMNet was trained on; each
    gives 3 steps of time by 2 bands of frequency, tapped before the pooling. (Run over a whole
    window at once, as its convolutions allow, the network tells fewer sounds apart: every neuron
    was trained with the padding at the borders of a patch in view.) Tokens that start past the end
    of the sound are masked.

    The tokens hold no trace of when inside the window they are, so a fixed sinusoidal code of time
    and band is added, scaled by 0.1: an rms of 0.07 where the features have 0.36.

    A track of more than ``max_windows`` windows is cut into that many equal parts, of which each
    window hears the middle; a last piece shorter than 0.48 s gets no window of its own.
    ``threads`` is onnxruntime's, torch's own number by default. The weights wait for the first
    call, which downloads them where they are missing (WeightsError).
    """

    name = "yamnet"
    width = 1024

    def __init__(
        self, window: float = 5.0, max_windows: int = 12, *, threads: int | None = None
    ) -> None:
        if window < PATCH * HOP / RATE or max_windows < 1:
            raise ValueError(f"window {window} must be at least 0.96 s, max_windows at least 1")
        self.window = window
        self.max_windows = max_windows
        self.threads = threads
        self.fingerprint = f"{weights.fingerprint(NAME)}/{window:g}s/{max_windows}/{CODE_SCALE:g}"
        patches = math.ceil(round(window * RATE / HOP / PATCH, 6))
        last = round(window * RATE / HOP) - PATCH
        self._offsets = np.round(np.linspace(0, last, patches)).astype(np.int64)  # in frames
        starts = self._offsets[:, None] * HOP / RATE + STEP * np.arange(STEPS)
        self._token_starts = np.repeat(starts.reshape(-1), BANDS)
        middles = torch.from_numpy(self._token_starts + STEP / 2) / STEP
        bands = torch.arange(BANDS).repeat(patches * STEPS)
        self._code = CODE_SCALE * position_code(torch.stack([middles, bands], dim=1), self.width)

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or torch.get_num_threads()
        return onnxruntime.InferenceSession(
            str(fetch() / "yamnet.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, media: Audio, /) -> Features:
        """Encode a track. Raises MediaError when it is empty, not finite or not at 16 kHz."""
        tokens, mask, spans = self._run(media)
        return Features(
            torch.from_numpy(tokens) + self._code,
            torch.from_numpy(mask),
            torch.from_numpy(spans + media.start),
        )

    def classify(self, audio: Audio) -> list[tuple[str, float]]:
        """The 521 AudioSet classes with their mean score over the track, highest first."""
        tokens, mask, _ = self._run(audio)
        patches = tokens.reshape(-1, STEPS * BANDS, self.width).mean(axis=1)
        heard = patches[mask[:, :: STEPS * BANDS].reshape(-1)]
        path = fetch()
        head = load_file(path / "head.safetensors")
        classes = json.loads((path / "classes.json").read_text())
        logits = heard @ head["weight"].T + head["bias"]
        scores = torch.from_numpy(logits).sigmoid().mean(dim=0)
        order = scores.argsort(descending=True, stable=True).tolist()
        return [(classes[index], scores[index].item()) for index in order]

    def _run(self, audio: Audio) -> tuple[Array, Any, Any]:
        """Tokens without the code ``[S, K, W]``, mask ``[S, K]``, spans ``[S, 2]`` in seconds."""
        if len(audio.samples) == 0 or audio.rate != RATE:
            raise MediaError(
                f"{len(audio.samples)} samples at {audio.rate} Hz; need some at {RATE} Hz"
            )
        if not np.isfinite(audio.samples).all():
            raise MediaError("the sound has samples that are not finite numbers; decode it again")
        duration = len(audio.samples) / RATE
        starts = self._starts(duration)
        ends = np.minimum(starts + self.window, duration)
        first = np.round(starts * RATE).astype(np.int64)[:, None] + self._offsets * HOP
        length = (PATCH - 1) * HOP + FRAME
        samples = np.pad(audio.samples, (0, max(0, int(first.max()) + length - audio.samples.size)))
        patches = samples[first.reshape(-1, 1) + np.arange(length)]
        sound = log_mel(torch.from_numpy(patches))[:, None]
        (grid,) = self._session.run(None, {"audio": sound.numpy()})
        tokens = grid.transpose(0, 2, 3, 1).reshape(len(starts), -1, self.width)
        mask = self._token_starts < (ends - starts)[:, None]
        return np.ascontiguousarray(tokens), mask, np.stack([starts, ends], axis=1)

    def _starts(self, duration: float) -> Any:
        """Where the windows start ``[S]``, in seconds of the track."""
        needed = max(1, math.ceil((duration - SHORTEST_TAIL) / self.window))
        if needed <= self.max_windows:
            return np.arange(needed) * self.window
        part = duration / self.max_windows
        return (np.arange(self.max_windows) + 0.5) * part - self.window / 2


def log_mel(samples: Tensor) -> Tensor:
    """``[P, n]`` samples at 16 kHz to ``[P, frames, 64]``: log(mel + 0.001) of the magnitude.

    Frames of 25 ms every 10 ms, whole ones only, under a periodic Hann window, FFT of 512; bands
    from 125 to 7500 Hz, triangular on the mel scale.
    """
    frames = samples.unfold(-1, FRAME, HOP) * torch.hann_window(FRAME)
    return torch.log(torch.fft.rfft(frames, FFT).abs() @ _mel_matrix() + LOG_OFFSET)


@cache
def _mel_matrix() -> Tensor:
    """Triangles ``[257, 64]`` with corners evenly spaced in mel, straight in mel and not in Hz."""

    def mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    bins = mel(torch.linspace(0, RATE / 2, FFT // 2 + 1, dtype=torch.float64))[:, None]
    low, high = mel(torch.tensor([LOWEST, HIGHEST], dtype=torch.float64)).tolist()
    corners = torch.linspace(low, high, MELS + 2, dtype=torch.float64)
    rising = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float()


def _convert(raw: Path, out: Path) -> None:
    import onnx
    from onnx import numpy_helper

    with tempfile.TemporaryDirectory(dir=out.parent) as scratch, zipfile.ZipFile(raw) as archive:
        archive.extractall(scratch)
        model = onnx.load(next(Path(scratch).rglob("*.onnx")))
    head = {
        part: numpy_helper.to_array(entry).copy()
        for part in ("weight", "bias")
        for entry in model.graph.initializer
        if entry.name == f"model.classifier.{part}"
    }
    save_file(head, out / "head.safetensors")
    with (raw.parent / "yamnet_class_map.csv").open(newline="") as stream:
        names = [row["display_name"] for row in csv.DictReader(stream)]
    (out / "classes.json").write_text(json.dumps(names))
    _cut(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, out / "yamnet.onnx")


def _cut(graph: Any) -> None:
    """Keep what comes before the pooling, in float, for any number of patches.

    The weights are 8-bit numbers in float already. Activations are clipped to the range that their
    8 bits hold instead of being rounded: the rounding adds nothing but numbers that differ between
    processors, while without the range near silence drives them to ten times theirs.
    """
    from onnx import TensorProto, helper, numpy_helper

    constants = {entry.name: entry for entry in graph.initializer}
    bounds, layers = [], []
    source: dict[str, str] = {}  # a dropped node's output -> what takes its place
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:])
            ends = [f"{node.output[0]}_low", f"{node.output[0]}_high"]
            for name, level in zip(ends, (0, 255), strict=True):
                limit = np.asarray(scale * (level - float(zero)), dtype=np.float32)
                bounds.append(numpy_helper.from_array(limit, name))
            layers.append(helper.make_node("Clip", [node.input[0], *ends], [node.output[0]]))
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            source[node.output[0]] = source.get(node.input[0], node.input[0])
        else:
            node.input[:] = [source.get(name, name) for name in node.input]
            layers.append(node)
        if node.output[0] == LAST:
            break
    used = {name for node in layers for name in node.input}
    shapes = {"audio": ["patches", 1, PATCH, MELS], LAST: ["patches", 1024, STEPS, BANDS]}
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    for field, entries in (
        ("node", layers),
        ("initializer", [constants[name] for name in constants if name in used] + bounds),
        ("value_info", []),
        ("input", [values["audio"]]),
        ("output", [values[LAST]]),
    ):
        graph.ClearField(field)
        getattr(graph, field).extend(entries)
