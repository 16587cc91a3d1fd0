"""The paper's numbers, as data: every row of Tables 1 to 8 and 12 to 18.

Tables 9 to 11 are settings, which ``configs/paper/`` has.

Senses are V video, A audio, F flow, D depth, N normals, P points, T touch, H temperature; BEV is a
bird's-eye picture of the scene. Values are per cent right unless their column says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

LETTERS = {
    "V": "video",
    "A": "audio",
    "F": "flow",
    "D": "depth",
    "N": "normal",
    "P": "point",
    "T": "touch",
    "H": "thermal",
}
OURS = "CREMA"
TRAINABLE, TOTAL, GFLOPS = "trainable", "total", "GFLOPs"


@dataclass(frozen=True)
class Row:
    """table: its number in the paper. task: the benchmark. method: as printed, without citation.
    letters: its senses, as in "VAF" ("" where none is named). values: column -> number, as printed;
    ``trainable`` and ``total`` are parameters as printed ("9M"), without a column what was "-"."""

    table: int
    task: str
    method: str
    letters: str
    values: Mapping[str, str]

    @property
    def senses(self) -> tuple[str, ...]:
        return tuple(LETTERS[letter] for letter in self.letters if letter in LETTERS)

    def number(self, column: str) -> float | None:
        """The first number of a column, in units: "9M" is 9e6, "1.78K" 1780."""
        text = self.values.get(column)
        if text is None:
            return None
        digits = text.split()[0].lstrip("~")
        scale = {"K": 1e3, "M": 1e6, "B": 1e9}.get(digits[-1], 1.0)
        return float(digits.rstrip("KMB")) * scale


_MUSIC = "Cnt Com Avg.A vCnt vLoc Avg.V Ext Loc avCnt avCom Tem Avg.AV Avg"
_TABLES = f"""
1 MUSIC-AVQA: {_MUSIC} trainable GFLOPs
AVQA VA: 80.3 60.0 77.3 74.5 77.8 76.1 81.4 68.7 69.9 64.6 67.1 70.9 73.5 18M -
LAVISH VA: 85.6 65.9 81.4 80.2 81.1 80.6 84.6 69.2 78.8 65.6 69.1 73.8 76.9 21M -
BLIP-2 V: 86.7 58.5 76.3 87.2 93.7 90.5 81.5 72.0 81.3 64.3 70.1 74.2 78.9 108M 1.30K
BLIP-2 VA: 86.3 58.4 76.0 87.6 93.0 90.3 80.4 68.3 82.6 63.8 69.8 73.5 78.4 216M 1.78K
BLIP-2 VAF: 86.0 59.9 76.4 84.9 92.5 88.8 81.8 71.4 79.7 65.1 68.4 73.6 78.1 324M 3.21K
CREMA V: 88.3 60.6 82.3 84.4 85.2 84.8 84.8 71.7 80.8 63.8 70.6 74.6 78.7 4M 1.30K
CREMA VA: 89.0 61.4 83.0 84.7 85.0 84.8 84.4 73.2 84.8 63.2 71.3 75.6 79.4 9M 1.78K
CREMA VAF: 87.1 61.0 81.5 84.2 90.3 87.2 83.4 74.2 82.6 68.7 71.7 76.4 80.5 21M 1.81K
CREMA VAFDN: 88.3 64.7 83.2 86.2 91.3 88.7 84.9 74.9 85.2 68.6 73.5 77.7 81.7 38M 1.84K

2 SQA3D: What Is How Can Which Others Avg trainable GFLOPs
MCAN BEV: 28.8 59.6 44.0 68.3 40.7 40.4 43.4 56M -
ClipBERT V: 30.2 60.1 38.7 63.3 42.4 42.7 43.3 135M -
ScanQA P: 31.6 63.8 46.2 69.5 43.8 45.3 46.5 38M -
3D-LLM V: 45.1 62.7 48.6 63.3 45.8 49.8 51.4 108M 1.30K
3D-LLM VP: 47.7 61.0 49.0 63.6 49.0 49.6 52.3 216M 1.67K
3D-LLM VPDN: 45.2 62.4 44.8 64.2 45.8 49.4 52.0 434M 5.47K
CREMA V: 44.9 62.1 48.1 67.7 48.4 49.8 51.8 4M 1.30K
CREMA VP: 46.2 63.6 46.4 63.0 48.7 50.1 52.1 8M 1.69K
CREMA VPDN: 47.6 66.0 51.0 65.1 48.4 56.4 54.6 38M 1.83K

3 NExT-QA: How Why Avg.C P&N Pre Avg.T Cnt Loc Otr Avg.D Avg trainable GFLOPs
LLaMA-VQA V: - - 72.7 - - 69.2 - - - 75.8 72.0 5M -
Mirasol3B V: - - - - - - - - - - 73.2 3B -
SeViLA V: 71.3 75.3 74.2 67.8 71.7 69.4 67.2 91.8 85.2 81.3 73.8 216M -
BLIP-2 V: 69.9 73.9 72.9 65.4 71.9 68.1 64.9 91.8 80.3 81.2 72.6 108M 1.30K
BLIP-2 VF: 68.8 74.0 72.6 65.8 71.1 68.0 64.9 92.8 81.3 81.9 72.6 216M 2.21K
BLIP-2 VFD: 70.8 74.2 73.3 65.0 71.4 67.6 61.5 93.2 81.6 81.4 72.7 324M 5.03K
BLIP-2 VFDN: 71.7 74.2 73.5 65.7 72.6 68.5 65.5 92.5 81.9 82.1 73.3 432M 6.12K
CREMA V: 67.3 73.9 72.1 63.0 70.2 65.9 64.9 93.2 80.3 81.6 71.6 4M 1.30K
CREMA VF: 69.3 74.1 72.8 64.4 70.5 66.9 67.2 92.8 80.9 82.2 72.4 8M 2.22K
CREMA VFD: 70.4 74.4 73.3 66.6 72.4 69.0 61.0 92.5 81.0 80.8 73.2 20M 2.34K
CREMA VFDN: 71.3 75.5 74.4 67.3 72.5 69.4 66.1 92.9 79.7 81.6 73.9 28M 2.47K

4 TouchQA: Acc trainable
CMC VT: 44.3 12M
BLIP-2 V: 78.2 108M
BLIP-2 VT: 77.4 216M
CREMA V: 78.0 4M
CREMA VT: 79.1 8M
CREMA VTN: 79.3 20M

4 ThermalQA: Acc trainable
CMC VH: 40.3 12M
BLIP-2 V: 55.2 108M
BLIP-2 VH: 54.4 216M
CREMA V: 54.9 4M
CREMA VH: 56.2 8M
CREMA VHD: 56.7 20M

5 SQA3D: zero-shot total
Unified-QA P: 41.0 11.0B
GPT-3 P: 41.0 175.0B
3D-LLM P: 36.9 3.1B
OneLLM P: 34.5 7.8B
OneLLM V: 39.4 7.8B
OneLLM VP: 37.9 7.8B
CREMA P: 37.3 3.1B
CREMA V: 39.6 4.1B
CREMA VP: 40.0 4.1B

5 MUSIC-AVQA: zero-shot total
X-BLIP A: 22.7 13.2B
X-BLIP V: 43.5 14.1B
X-BLIP VA: 44.5 14.4B
OneLLM A: 34.8 7.8B
OneLLM V: 48.4 7.8B
OneLLM VA: 42.3 7.8B
CREMA A: 31.0 3.2B
CREMA V: 51.0 4.1B
CREMA VA: 52.6 4.2B

6 MUSIC-AVQA: Acc trainable epochs
BLIP-2 VAF: 77.8 324M 8
BLIP-2 VAF: 78.1 324M 20
CREMA VAFDN: 79.3 38M 8
CREMA VAFDN: 80.5 38M 20
CREMA+early-exit VAFDN: 80.3 38M ~8
CREMA+early-exit VAFDN: 80.5 38M ~13

6 SQA3D: Acc trainable epochs
3D-LLM VPDN: 51.2 432M 10
3D-LLM VPDN: 52.0 432M 20
CREMA VPDN: 52.8 38M 10
CREMA VPDN: 54.6 38M 20
CREMA+early-exit VPDN: 53.9 38M ~10
CREMA+early-exit VPDN: 54.3 38M ~15

7 NExT-QA: Acc GFLOPs
video-only V: 71.6 1.30K
concat VFDN: 73.5 6.14K
cross-attention VFDN: 70.5 2.33K
linear VFDN: 71.1 1.87K
mixture-of-experts VFDN: 72.0 1.02K
self-gated VFDN: 73.9 2.47K

7 SQA3D: Acc
video-only V: 51.8
concat VPD: 53.0
cross-attention VPD: 49.8
linear VPD: 51.3
mixture-of-experts VPD: 51.1
self-gated VPD: 54.6

8 SQA3D: easy hard
CREMA V: 75.0 37.2
CREMA VP: 75.8 37.3
CREMA VPDN: 72.6 42.1

8 MUSIC-AVQA: easy hard
CREMA V: 85.7 71.2
CREMA VA: 87.2 71.4
CREMA VAFDN: 87.9 75.2

8 NExT-QA: easy hard
CREMA V: 90.6 41.5
CREMA VD: 90.2 43.1
CREMA VFD: 90.5 44.7
CREMA VFDN: 89.1 50.0

12 VGGSound: Acc in-vocabulary trainable
CAV-MAE V: 47.0 - 324M
CAV-MAE VA: 65.5 - 324M
Mirasol3B-TTM VA: 66.4 - 3B
Mirasol3B VA: 69.8 - 3B
CREMA V: 51.5 53.1 4M
CREMA VA: 62.4 67.0 9M

13 PerceptionTest: Acc trainable
BLIP-2 V: 67.1 108M
BLIP-2 VF: 68.2 216M
BLIP-2 VFD: 67.9 324M
CREMA V: 66.6 4M
CREMA VF: 68.2 8M
CREMA VFD: 68.7 20M

14 NExT-QA: batch memory-GiB
BLIP-2 VFDN: 4 46.3
CREMA VFDN: 4 18.6

15 MUSIC-AVQA: {_MUSIC}
CREMA A: 50.4 53.2 51.0 29.1 18.5 23.9 39.9 13.0 27.1 49.6 4.3 29.1 31.0
CREMA V: 73.4 51.2 68.6 51.4 44.4 48.0 76.4 43.5 38.7 47.1 26.3 47.7 51.0
CREMA VA: 75.5 51.6 70.4 55.5 42.6 49.2 76.2 44.2 45.1 48.2 26.3 49.5 52.6

16 MUSIC-AVQA: Acc trainable
CREMA-joint VAFDN: 80.6 38M
CREMA VAFDN: 81.7 38M

16 SQA3D: Acc trainable
CREMA-joint VPDN: 52.7 38M
CREMA VPDN: 54.6 38M

16 NExT-QA: Acc trainable
CREMA-joint VFDN: 73.0 28M
CREMA VFDN: 73.9 28M

17 MUSIC-AVQA: without-pre-training with
CREMA A: 28.1 31.0

17 SQA3D: without-pre-training with
CREMA P: 36.1 37.3

18 MUSIC-AVQA: Acc trainable
CREMA-rank-32 A: 69.4 3.8M
CREMA-rank-64 A: 68.0 5.0M
CREMA-rank-128 A: 67.7 7.4M

18 SQA3D: Acc trainable
CREMA-rank-32 P: 47.0 2.7M
CREMA-rank-64 P: 47.3 3.9M
CREMA-rank-128 P: 46.3 6.3M
"""


@cache
def rows() -> tuple[Row, ...]:
    """All of them, in the paper's order."""
    return tuple(_read())


def _read() -> Iterator[Row]:
    for part in _TABLES.strip().split("\n\n"):
        head, *lines = part.splitlines()
        title, _, names = head.partition(": ")
        number, _, task = title.partition(" ")
        columns = names.split()
        for line in lines:
            who, _, cells = line.partition(": ")
            method, _, letters = who.rpartition(" ")
            values = dict(zip(columns, cells.split(), strict=True))
            shown = {column: cell for column, cell in values.items() if cell != "-"}
            yield Row(int(number), task, method, letters, shown)
