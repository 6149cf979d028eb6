# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from shapeworld.shapes import corners, distance, reach
from shapeworld.vocabulary import SHAPES

STEP = 0.02
AXIS = np.arange(-1.3, 1.3 + STEP / 2, STEP)
X, Y = np.meshgrid(AXIS, AXIS)


def outline(shape: str) -> np.ndarray:
    """Points of the outline, found by bisection along 20,000 rays and by zero crossings on a fine grid."""
    fine = np.arange(-1.05, 1.05, 0.002)
    points = []
    for x, y in ((fine[None], fine[:, None]), (fine[:, None], fine[None])):
        value = distance(shape, *np.broadcast_arrays(x, y))
        a, b = value[:, :-1], value[:, 1:]
        rows, columns = np.nonzero(np.signbit(a) != np.signbit(b))
        part = a[rows, columns] / (a[rows, columns] - b[rows, columns])
        along, across = fine[columns] + 0.002 * part, fine[rows]
        points.append(np.stack((along, across) if x.shape[0] == 1 else (across, along), axis=1))
    return np.concatenate(points)


@pytest.mark.parametrize("shape", SHAPES)
def test_distance_is_that_to_the_nearest_point_of_the_outline(shape: str) -> None:
    from scipy.spatial import cKDTree

    nearest, _ = cKDTree(outline(shape)).query(np.stack((X.ravel(), Y.ravel()), axis=1))
    np.testing.assert_allclose(np.abs(distance(shape, X, Y)).ravel(), nearest, atol=3e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_fits_the_unit_circle_and_reaches_it(shape: str) -> None:
    inside = distance(shape, X, Y) < 0
    far = np.hypot(X, Y)[inside].max()
    assert reach(shape) - 3 * STEP < far <= reach(shape) <= 1.02


@pytest.mark.parametrize("shape", SHAPES)
def test_corners_lie_on_the_outline(shape: str) -> None:
    for x, y in corners(shape):
        assert abs(distance(shape, np.array(x), np.array(y))) < 1e-3


@pytest.mark.parametrize(
    ("shape", "inside", "outside"),
    [
        ("ring", (0.72, 0), (0, 0)),
        ("crescent", (-0.65, 0), (0.3, 0)),
        ("star", (0, -0.9), (0, 0.9)),
        ("triangle", (0, -0.9), (0, 0.9)),
        ("heart", (0, 0.9), (0, -0.8)),
        ("cross", (0.9, 0), (0.6, 0.6)),
        ("square", (0.6, 0.6), (0.9, 0)),
        ("circle", (0.6, 0.6), (0.7, 0.7)),
    ],
)
def test_shapes_are_what_their_names_say(shape: str, inside: tuple, outside: tuple) -> None:
    assert (
        distance(shape, *np.array(inside, dtype=float)) < 0 < distance(shape, *np.array(outside, dtype=float))
    )
