"""Operations of the experts: the formulas against runs whose every operation is counted.

Flow is counted on a plain dense inverse search, written here from its description; normals on the
expert's own code.
"""

import json
import math
from io import StringIO
from itertools import product

import numpy as np
import pytest
from rich.console import Console

from open_crema import config, cost, modality
from open_crema.config import Config
from open_crema.cost.experts import dis_operations, expert, normals_operations
from open_crema.experts import normals
from open_crema.experts.flow import LONG_SIDE, method
from open_crema.modality import Modality

ARITHMETIC = {np.add, np.subtract, np.multiply, np.divide, np.sqrt}


class Counted(np.ndarray):
    """An array that counts what is computed with it: results of arithmetic, and sums' additions."""

    done = 0

    def __array_ufunc__(self, ufunc, kind, *inputs, out=None, **given):
        plain = [np.asarray(i) for i in inputs]
        if out is not None:
            given["out"] = tuple(np.asarray(o) for o in out)
        result = getattr(ufunc, kind)(*plain, **given)
        if ufunc is np.matmul:
            Counted.done += np.size(result) * (2 * plain[0].shape[-1] - 1)
        elif ufunc in ARITHMETIC:
            Counted.done += np.size(plain[0]) - np.size(result) if kind == "reduce" else result.size
        return out[0] if out is not None else counted(result)


def counted(array):
    return np.asarray(array).view(Counted)


def operations_of(run):
    before = Counted.done
    run()
    return Counted.done - before


def test_a_counted_array_counts():
    a = counted(np.ones((2, 3)))
    assert operations_of(lambda: (a + 1) * a) == 12
    assert operations_of(lambda: a.sum()) == 5
    assert operations_of(lambda: np.maximum(a, 2) > a) == 0
    assert operations_of(lambda: a @ np.ones((3, 4))) == 8 * 5


def shrunk(picture, by):
    """Means of squares."""
    h, w = picture.shape[0] // by, picture.shape[1] // by
    parts = counted(picture[: h * by, : w * by].reshape(h, by, w, by))
    return parts.sum(axis=(1, 3)) / by**2


def around(picture, dy, dx):
    """Each pixel's neighbour; beyond the border is the border."""
    ys = np.clip(np.arange(picture.shape[0]) + dy, 0, picture.shape[0] - 1)
    xs = np.clip(np.arange(picture.shape[1]) + dx, 0, picture.shape[1] - 1)
    return picture[ys][:, xs]


def sobel(picture):
    def smoothed(a, b, c):
        return a + 2 * b + c

    across, down = (
        around(picture, 0, 1) - around(picture, 0, -1),
        around(picture, 1, 0) - around(picture, -1, 0),
    )
    return (
        smoothed(around(across, -1, 0), across, around(across, 1, 0)),
        smoothed(around(down, 0, -1), down, around(down, 0, 1)),
    )


def bilinear(picture, y, x):
    """Of real places; weights are made for each."""
    y, x = (
        counted(np.clip(place, 0, size - 1.001))
        for place, size in zip((y, x), picture.shape, strict=True)
    )
    y0, x0 = np.asarray(y).astype(int), np.asarray(x).astype(int)
    below, right = y - y0, x - x0
    above, left = (y0 + 1) - y, (x0 + 1) - x
    return (
        above * left * picture[y0, x0]
        + above * right * picture[y0, x0 + 1]
        + below * left * picture[y0 + 1, x0]
        + below * right * picture[y0 + 1, x0 + 1]
    )


class Patch:
    """One patch's inverse search. Weights and moments are the same for all of its pixels, and made
    of plain numbers, which are not counted."""

    def __init__(self, first, second, gradients, top, left, size):
        self.place = (slice(top, top + size), slice(left, left + size))
        self.own, self.second = counted(first[self.place]), second
        self.gx, self.gy = (counted(g[self.place]) for g in gradients)
        self.top, self.left, self.size = top, left, size
        gx, gy = np.asarray(self.gx), np.asarray(self.gy)
        moments = np.array([[(gx * gx).sum(), (gx * gy).sum()], [(gx * gy).sum(), (gy * gy).sum()]])
        self.inverse = np.linalg.inv(moments + 1e-3 * np.eye(2))
        self.sums = np.array([gx.sum(), gy.sum()])

    def difference(self, flow):
        h, w = self.second.shape
        y = min(max(self.top + float(flow[1]), 0), h - self.size - 1.001)
        x = min(max(self.left + float(flow[0]), 0), w - self.size - 1.001)
        y0, x0 = int(y), int(x)
        fy, fx = y - y0, x - x0
        around = counted(np.asarray(self.second)[y0 : y0 + self.size + 1, x0 : x0 + self.size + 1])
        return (
            (1 - fy) * (1 - fx) * around[:-1, :-1]
            + (1 - fy) * fx * around[:-1, 1:]
            + fy * (1 - fx) * around[1:, :-1]
            + fy * fx * around[1:, 1:]
            - self.own
        )

    def distance(self, flow):
        d = self.difference(flow)
        return float((d * d).sum()) - float(d.sum()) ** 2 / d.size

    def descended(self, flow, steps):
        best, found = math.inf, np.array(flow)
        for _ in range(steps):
            d = self.difference(flow)
            total, distance = float(d.sum()), float((d * d).sum())
            distance -= total**2 / d.size
            if distance < best:
                best, found = distance, np.array(flow)
            slopes = np.array([float((d * self.gx).sum()), float((d * self.gy).sum())])
            flow = flow - self.inverse @ (slopes - total * self.sums / d.size)
        return found


def running_sums(gradients, size, stride):
    """What the moments of all patches cost, by sums that slide along rows and then columns. Their
    values are made anew by each patch."""
    gx, gy = gradients
    for term in (
        lambda at: gx[at] * gx[at],
        lambda at: gy[at] * gy[at],
        lambda at: gx[at] * gy[at],
    ):
        entering = term(np.s_[:, size:])
        leaving = term(np.s_[:, :-size])
        counted(np.zeros(entering.shape)) + (entering - leaving)
        term(np.s_[:, :size]).sum(axis=1)
    for g in (gx, gy):
        counted(np.zeros(g[:, size:].shape)) + (g[:, size:] - g[:, :-size])
        g[:, :size].sum(axis=1)
    columns = 1 + (gx.shape[1] - size) // stride
    for _ in range(5):
        rows = counted(np.zeros((gx.shape[0], columns)))
        counted(np.zeros(rows[size:].shape)) + (rows[size:] - rows[:-size])
        rows[:size].sum(axis=0)


def searched(first, second, flow, size, stride, descents):
    """``[h, w, 2]``: sparse flow by two sweeps, made dense."""
    gradients = sobel(counted(first))
    running_sums(gradients, size, stride)
    h, w = first.shape
    tops, lefts = range(0, h - size + 1, stride), range(0, w - size + 1, stride)
    patches = {
        (i, j): Patch(first, second, gradients, top, left, size)
        for (i, top), (j, left) in product(enumerate(tops), enumerate(lefts))
    }
    sparse = {
        at: np.asarray(flow)[p.top + size // 2, p.left + size // 2] for at, p in patches.items()
    }
    for sweep in (1, -1):
        for i, j in sorted(patches, reverse=sweep < 0):
            patch = patches[i, j]
            near = [sparse.get(at) for at in ((i, j), (i, j - sweep), (i - sweep, j))]
            start = min((f for f in near if f is not None), key=patch.distance)
            end = patch.descended(start, descents // 2)
            sparse[i, j] = end if np.linalg.norm(end - start) <= size else start
    sums, weights = counted(np.zeros((h, w, 2))), counted(np.zeros((h, w)))
    rows, columns = np.mgrid[:h, :w].astype(float)
    for at, patch in patches.items():
        u, v = sparse[at]
        y, x = counted(rows[patch.place]) + v, counted(columns[patch.place]) + u
        off = bilinear(np.asarray(second), y, x) - patch.own
        weight = 1 / np.maximum(1, abs(off))
        sums[(*patch.place, 0)] += weight * u
        sums[(*patch.place, 1)] += weight * v
        weights[patch.place] += weight
    return sums / np.maximum(weights, 1e-6)[..., None]


def refined(first, second, flow, iterations, alpha=20, delta=5, gamma=10, zeta=0.01, eps=1e-6):
    """Variational refinement, by red and black successive over-relaxation."""
    h, w = first.shape
    rows, columns = np.mgrid[:h, :w].astype(float)
    u, v = flow[..., 0], flow[..., 1]
    warped = bilinear(np.asarray(second), rows + v, columns + u)
    mean, z = 0.5 * counted(first) + 0.5 * warped, warped - first

    def across(a):
        return around(a, 0, 1) - around(a, 0, -1)

    def down(a):
        return around(a, 1, 0) - around(a, -1, 0)

    x, y, xz, yz = across(mean), down(mean), across(z), down(z)
    xx, xy, yy = across(x), down(x), down(y)
    du, dv = counted(np.zeros((h, w))), counted(np.zeros((h, w)))
    red = np.add.outer(np.arange(h), np.arange(w)) % 2 == 0
    now_u, now_v = u, v
    for _ in range(iterations):
        norm = x * x + y * y + zeta
        off = z + x * du + y * dv
        weight = delta / 2 / np.sqrt(off * off / norm + eps) / norm
        a11, a12, a22 = weight * (x * x) + zeta, weight * (x * y), weight * (y * y) + zeta
        b1, b2 = -(weight * (z * x)), -(weight * (z * y))
        n1, n2 = xx * xx + xy * xy + zeta, yy * yy + xy * xy + zeta
        offx, offy = xz + xx * du + xy * dv, yz + xy * du + yy * dv
        weight = gamma / 2 / np.sqrt(offx * offx / n1 + offy * offy / n2 + eps)
        a11 += weight * (xx * xx / n1 + xy * xy / n2)
        a12 += weight * (xx * xy / n1 + xy * yy / n2)
        a22 += weight * (xy * xy / n1 + yy * yy / n2)
        b1 -= weight * (xx * xz / n1 + xy * yz / n2)
        b2 -= weight * (xy * xz / n1 + yy * yz / n2)
        slopes = [around(f, *at) - f for f in (now_u, now_v) for at in ((0, 1), (1, 0))]
        square = slopes[0] * slopes[0]
        for slope in slopes[1:]:
            square = square + slope * slope
        smooth = alpha / 2 / np.sqrt(square + eps)
        for at, cut, after in (
            ((0, 1), np.s_[:, :-1], np.s_[:, 1:]),
            ((1, 0), np.s_[:-1], np.s_[1:]),
        ):
            for f, a, b in ((u, a11, b1), (v, a22, b2)):
                pull = (smooth * (around(f, *at) - f))[cut]
                a[cut] += smooth[cut]
                a[after] += smooth[cut]
                b[cut] += pull
                b[after] -= pull
        above, left = around(smooth, -1, 0).copy(), around(smooth, 0, -1).copy()
        above[0] = left[:, 0] = 0
        right, below = smooth.copy(), smooth.copy()
        right[:, -1] = below[-1] = 0
        pulls = ((left, 0, -1), (right, 0, 1), (above, -1, 0), (below, 1, 0))
        for _ in range(5):
            for colour in (red, ~red):
                relaxed(du, dv, b1, a11, a12, pulls, colour)
                relaxed(dv, du, b2, a22, a12, pulls, colour)
        now_u, now_v = u + du, v + dv
    return np.stack([np.asarray(now_u), np.asarray(now_v)], axis=-1)


def relaxed(f, other, b, a, a12, pulls, colour):
    """One component of the pixels of a colour, in place."""
    terms = [weight[colour] * around(f, dy, dx)[colour] for weight, dy, dx in pulls]
    pulled = terms[0] + terms[1] + terms[2] + terms[3]
    aim = (pulled + b[colour] - other[colour] * a12[colour]) / a[colour]
    f[colour] += 1.6 * (aim - f[colour])


def enlarged(flow, height, width):
    """Bilinear; the weights of rows and columns are the same for all, and not counted."""
    h, w = flow.shape[:2]
    y = np.clip((np.arange(height) + 0.5) * h / height - 0.5, 0, h - 1.001)
    x = np.clip((np.arange(width) + 0.5) * w / width - 0.5, 0, w - 1.001)
    y0, x0 = y.astype(int), x.astype(int)
    fy, fx = (y - y0)[:, None, None], (x - x0)[None, :, None]
    corner = {(a, b): counted(flow)[y0 + a][:, x0 + b] for a, b in product((0, 1), repeat=2)}
    mean = (
        (1 - fy) * (1 - fx) * corner[0, 0]
        + (1 - fy) * fx * corner[0, 1]
        + fy * (1 - fx) * corner[1, 0]
        + fy * fx * corner[1, 1]
    )
    return mean * (height / h)


def plain_dis(first, second, *, finest, coarsest, patch, stride, descents, refined_by):
    firsts, seconds = [shrunk(first, 2**finest)], [shrunk(second, 2**finest)]
    for _ in range(finest, coarsest):
        firsts.append(shrunk(firsts[-1], 2))
        seconds.append(shrunk(seconds[-1], 2))
    flow = np.zeros((*firsts[-1].shape, 2))
    for a, b in zip(firsts[::-1], seconds[::-1], strict=True):
        if flow.shape[:2] != a.shape:
            flow = enlarged(flow, *a.shape)
        a, b = np.asarray(a), np.asarray(b)
        flow = searched(a, b, flow, patch, stride, descents)
        if refined_by:
            flow = refined(a, b, flow, refined_by)
    return enlarged(flow, *first.shape)


def texture(height, width, right, down):
    """Waves, and the same moved by so many pixels."""
    rng = np.random.default_rng(0)
    waves = rng.uniform(-0.5, 0.5, (12, 2)), rng.uniform(0, 6, 12)
    y, x = np.mgrid[:height, :width].astype(float)

    def drawn(dx, dy):
        return 128 + sum(
            9 * np.sin(ky * (y - dy) + kx * (x - dx) + phase)
            for (ky, kx), phase in zip(*waves, strict=True)
        )

    return drawn(0, 0), drawn(right, down)


CASES = {
    "as the preset, smaller": (
        {"finest": 1, "patch": 8, "stride": 3, "descents": 12, "refined": 2},
        (80, 64),
        1,
    ),
    "two scales": (
        {"finest": 0, "patch": 4, "stride": 2, "descents": 6, "refined": 3},
        (40, 24),
        1,
    ),
    "nothing refined": (
        {"finest": 0, "patch": 6, "stride": 4, "descents": 16, "refined": 0},
        (32, 30),
        0,
    ),
}


@pytest.mark.parametrize(("given", "size", "coarsest"), CASES.values(), ids=CASES)
def test_flow_is_counted_as_a_plain_search_counts(given, size, coarsest):
    width, height = size
    first, second = texture(height, width, 1.5, -0.75)
    own = {name: n for name, n in given.items() if name != "refined"}
    before = Counted.done
    flow = plain_dis(first, second, coarsest=coarsest, refined_by=given["refined"], **own)
    done = Counted.done - before
    inner = np.asarray(flow)[8:-8, 8:-8]
    assert np.abs(np.median(inner, axis=(0, 1)) - (1.5, -0.75)).max() < 0.1  # it is a search
    assert 2 * dis_operations(width, height, **given) == pytest.approx(done, rel=0.03)


def test_flow_is_counted_with_what_the_expert_uses():
    """By hand: three scales of 128, 64 and 32 pixels a side."""
    dis = method()
    assert (dis.getPatchSize(), dis.getPatchStride(), dis.getFinestScale()) == (8, 3, 1)
    done = 16 * (64**2 + 128**2 + 256**2)  # flow is enlarged to these
    for side, across in ((128, 41), (64, 19), (32, 9)):
        n, covered = side**2, (8 * across) ** 2
        shrink = 8  # of 2 x 2 pixels, in two pictures
        done += (shrink + 8 + 16 + 2) * n + 10 * side * across
        done += covered * (2 * 3 * 11 + 2 * 12 * 15 + 24)
        done += n * (28 + 5 * (85 + 38 + 2 + 5 * 28))
    found = expert("flow", 4)
    assert found.macs == 4 * (done // 2)
    assert found.said.startswith("about, and at most")
    assert found.paper == "Unimatch"


class Numpy:
    """numpy, whose arrays are counted."""

    class linalg:  # noqa: N801
        @staticmethod
        def norm(a, axis, keepdims):
            return np.sqrt((a * a).sum(axis=axis, keepdims=keepdims))

    def __getattr__(self, name):
        found = getattr(np, name)
        if isinstance(found, type) or not callable(found):
            return found

        def called(*given, **more):
            result = found(*given, **more)
            return counted(result) if isinstance(result, np.ndarray) else result

        return called


@pytest.mark.parametrize(("height", "width"), [(20, 30), (90, 120)])
def test_normals_are_counted_as_their_code_counts(height, width, monkeypatch):
    plane = np.linspace(2, 3, width)[None, None].repeat(height, axis=1)
    camera = np.array([[60.0, 0, width / 2], [0, 60, height / 2], [0, 0, 1]])
    expected = normals.normals_from_depth(plane, camera)
    monkeypatch.setattr(normals, "np", Numpy())
    before = Counted.done
    found = normals.normals_from_depth(counted(plane), camera)
    done = Counted.done - before
    assert np.allclose(np.asarray(found), expected, atol=1e-5, equal_nan=True)
    assert 2 * normals_operations(width, height) == done


def test_what_reads_or_decodes_costs_nothing_and_the_rest_says_why():
    for sense in ("video", "audio", "depth", "point", "touch", "thermal"):
        found = expert(sense, 4)
        assert found.macs == 0
        assert found.said.startswith("none: ")
    assert expert("depth", 4).paper == "ZoeDepth-NK"
    assert expert("normal", 3).macs == 3 * normals_operations(LONG_SIDE, LONG_SIDE)


def test_an_expert_of_another_package_is_not_counted(monkeypatch):
    def made(path, clip):
        raise NotImplementedError

    radar = Modality("radar", "Radar", encoder=made, reader=made, expert=made)
    monkeypatch.setitem(modality._registry, "radar", radar)
    found = expert("radar", 4)
    assert found.macs is None
    assert found.said == "not counted: the expert of another package"


@pytest.fixture
def small(tmp_path):
    """A run with a small LLM and Q-Former."""
    llm = {
        "model_type": "llama",
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    (tmp_path / "config.json").write_text(json.dumps(llm))
    qformer = {"layers": 2, "width": 32, "heads": 2, "ffn": 48, "queries": 4}
    senses = ["video", "flow", "normal", "depth"]
    return config.from_dict(
        {"model": {"senses": senses, "llm": str(tmp_path), "qformer": qformer}}, schema=Config
    )


def test_experts_stand_beside_the_total(small):
    found = cost.operations(small.model, cost.Tokens(frames=3))
    said = found.to_dict()
    own = {"video": 0, "flow": expert("flow", 3).macs, "depth": 0}
    assert said["expert"] == own | {"normal": expert("normal", 3).macs}
    assert said["expert_said"]["video"] == "none: files are read or decoded"
    assert said["expert_of_paper"]["depth"] == "ZoeDepth-NK"
    others = [*found.encoders.values(), *found.qformer.values()]
    rest = found.fusion + found.llm_prompt + found.llm_answer
    assert said["total"] == sum(others) + rest


def test_the_table_says_what_is_counted_of_experts(small):
    console = Console(file=StringIO(), width=120)
    console.print(cost.main_table(small))
    text = " ".join(console.file.getvalue().split())
    assert "expert encoder Q-Former total" in text
    assert "video none" in text
    assert "depth none" in text
    assert f"flow {expert('flow', small.data.frames).macs / 1e9:.2f}" in text
    assert "flow: about, and at most, by OpenCV's DIS" in text
    assert "Unimatch (flow), ZoeDepth-NK (depth), NLL-AngMF (normal): not counted" in text
