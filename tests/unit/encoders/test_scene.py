"""Point features of RGB-D frames: the recipe, whatever the vision encoder."""

import numpy as np
import pytest
import torch

from open_crema.encoders.points import PointFeatures, position_code
from open_crema.encoders.scene import ScenePoints
from open_crema.errors import MediaError
from open_crema.features import Features
from open_crema.media import Cloud, Rgbd
from rgbd_factory import INTRINSICS, ROOM, WALK, Plane, pose, render


class Colours:
    """Patch features are the mean colour of the patch, behind a class token that is far off."""

    width, grid, fingerprint = 6, (6, 8), "colours/1"

    def __call__(self, media):
        count, height, width, _ = media.images.shape
        patches = media.images.reshape(count, 6, height // 6, 8, width // 8, 3).mean(axis=(2, 4))
        tokens = torch.zeros(count, 49, 6)
        tokens[:, 0] = 1e6
        tokens[:, 1:, :3] = torch.from_numpy(patches.reshape(count, 48, 3)).float()
        return Features(tokens, torch.ones(count, 49, dtype=torch.bool), torch.zeros(count, 2))


def scene(*cameras, things=ROOM, **changes):
    found = [render(things, camera) for camera in cameras]
    fields = {
        "colour": np.stack([colour for _, _, colour in found]),
        "metres": np.stack([depth for depth, _, _ in found]).astype(np.float32),
        "intrinsics": INTRINSICS,
        "poses": np.stack(cameras),
        "times": np.arange(len(cameras))[:, None] + np.array([0.0, 1.0]),
    }
    return Rgbd(**(fields | changes))


def encoder(**options):
    return ScenePoints(Colours(), **options)


def test_the_recipe_against_a_plain_loop():
    media = scene(*WALK[:3])
    found = encoder(voxel=0.4).points(media)
    cells = {}
    for image, depth, camera in zip(media.colour, media.metres, media.poses, strict=True):
        for row in range(6):
            for column in range(8):
                rows, columns = slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8)
                ray = np.linalg.inv(INTRINSICS) @ [8 * column + 3.5, 8 * row + 3.5, 1]
                middle = np.sort(depth[rows, columns].ravel())[31]
                at = camera @ [*(ray * middle), 1]
                cell = tuple(np.floor(at[:3] / 0.4).astype(int))
                cells.setdefault(cell, []).append(image[rows, columns].mean(axis=(0, 1)))
    least = np.min(list(cells), axis=0)
    assert found.voxels.tolist() == [(np.array(cell) - least).tolist() for cell in sorted(cells)]
    for row, cell in enumerate(sorted(cells)):
        np.testing.assert_allclose(found.features[row, :3], np.mean(cells[cell], 0), rtol=1e-5)


def test_tokens_are_features_and_the_code_of_their_voxel():
    media = scene(*WALK[:3])
    points = encoder().points(media)
    tokens = encoder()(media)
    expected = points.features + 0.01 * position_code(points.voxels, 6)
    torch.testing.assert_close(tokens.tokens[0], expected)
    assert tokens.times.tolist() == [[0.0, 3.0]]
    again = encoder()(points)
    torch.testing.assert_close(again.tokens, tokens.tokens, rtol=0, atol=0)
    assert again.times.tolist() == [[0.0, 3.0]]


def test_the_order_of_the_frames_does_not_matter():
    whole, turned = encoder().points(scene(*WALK)), encoder().points(scene(*WALK[::-1]))
    assert torch.equal(whole.voxels, turned.voxels)
    torch.testing.assert_close(whole.features, turned.features)


def test_the_same_view_twice_is_the_view_once():
    once, twice = encoder().points(scene(WALK[1])), encoder().points(scene(WALK[1], WALK[1]))
    assert torch.equal(once.voxels, twice.voxels)
    torch.testing.assert_close(once.features, twice.features)


def test_a_wall_seen_from_two_places_is_in_the_same_voxels():
    wall = [Plane((0, 0, 1), 2.05)]
    shift = 2.05 * 8 / 60  # one patch
    one = encoder().points(scene(pose((0.01, 0.01, 0)), things=wall))
    two = encoder().points(scene(pose((0.01, 0.01, 0)), pose((0.01 + shift, 0.01, 0)), things=wall))
    assert len(one.voxels) == 48
    assert len(two.voxels) == 48 + 6
    assert (two.voxels[:, 2] == 0).all()


def test_no_more_than_max_points():
    assert encoder(points=PointFeatures(6, max_points=10))(scene(*WALK)).tokens.shape == (1, 10, 6)


def test_one_frame_needs_no_pose_and_several_do():
    found = encoder().points(scene(pose(), poses=None))
    assert torch.equal(found.voxels, encoder().points(scene(pose())).voxels)
    with pytest.raises(MediaError, match="a pose for each frame"):
        encoder()(scene(*WALK, poses=None))
    with pytest.raises(MediaError, match="intrinsics"):
        encoder()(scene(pose(), intrinsics=None))


def test_patches_without_depth_make_no_points():
    media = scene(*WALK[:2])
    media.metres[1] = np.nan
    assert torch.equal(encoder().points(media).voxels, encoder().points(scene(WALK[0])).voxels)
    media.metres[0] = np.nan
    with pytest.raises(MediaError, match="enough valid depth"):
        encoder()(media)


def test_the_fingerprint_follows_all_that_changes_the_features():
    other = Colours()
    other.fingerprint = "colours/2"
    prints = [
        encoder(),
        encoder(voxel=0.2),
        encoder(points=PointFeatures(6, max_points=7)),
        encoder(views=3),
        ScenePoints(other),
    ]
    assert len({e.fingerprint for e in prints}) == 5
    assert encoder().fingerprint == encoder().fingerprint


@pytest.mark.parametrize("options", [{"voxel": 0.0}, {"voxel": float("nan")}, {"views": 0}])
def test_settings_that_make_no_sense(options):
    with pytest.raises(ValueError, match="must be above 0 metres"):
        encoder(**options)


class Grid16(Colours):
    """As `Colours`, for the square pictures of clouds."""

    grid = (16, 16)

    def __call__(self, media):
        count = len(media.images)
        patches = media.images.reshape(count, 16, 10, 16, 10, 3).mean(axis=(2, 4))
        tokens = torch.zeros(count, 257, 6)
        tokens[:, 1:, :3] = torch.from_numpy(patches.reshape(count, 256, 3)).float()
        return Features(tokens, torch.ones(count, 257, dtype=torch.bool), torch.zeros(count, 2))


def test_a_cloud_alone_is_looked_at_from_all_sides():
    """Two boards back to back, red to the left and blue to the right: both sides are found."""
    y, z = np.meshgrid(np.linspace(-1, 1, 150), np.linspace(-1, 1, 150))
    red, blue = (np.stack([np.full(y.size, x), y.ravel(), z.ravel()], 1) for x in (-0.2, 0.2))
    colours = np.repeat(np.array([[250, 0, 0], [0, 0, 250]], np.uint8), y.size, axis=0)
    cloud = Cloud(np.concatenate([red, blue]).astype(np.float32), colours)
    found = ScenePoints(Grid16(), voxel=0.1).points(cloud)
    inner = found.features[:, :3]
    strong = inner[(inner[:, [0, 2]] > 200).any(1)]
    x = found.voxels[(inner[:, [0, 2]] > 200).any(1), 0]
    assert len(strong) > 100
    left = strong[:, 0] > 200
    assert x[left].max() < x[~left].min()  # red ones have the smaller x
    extent = (found.voxels.max(0).values - found.voxels.min(0).values).tolist()
    # In voxels; at its edge a patch lies up to half its width beside the board.
    assert 3 <= extent[0] <= 8
    assert 17 <= extent[1] <= 24
    assert 17 <= extent[2] <= 24
    again = ScenePoints(Grid16(), voxel=0.1).points(cloud)
    assert torch.equal(found.features, again.features)
    one = ScenePoints(Grid16(), voxel=0.1, views=1).points(cloud)
    assert len(one.voxels) < len(found.voxels)


def test_a_cloud_of_a_few_points_is_seen():
    xyz = np.random.default_rng(0).uniform(-1, 1, (7, 3)).astype(np.float32)
    assert ScenePoints(Grid16()).points(Cloud(xyz)).features.isfinite().all()
    with pytest.raises(MediaError, match="no point"):
        ScenePoints(Grid16()).points(Cloud(xyz[:0]))
