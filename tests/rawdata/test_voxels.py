"""The checksum of voxels: one for all 48 ways to lay the same scan down, another for any other scan."""

from itertools import permutations, product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from utseg.rawdata.voxels import voxels_sha256

volumes = arrays(
    np.float32,
    st.tuples(*(st.integers(2, 6),) * 3),
    elements=st.integers(0, 4095).map(float),
    unique=True,
)


def turned(image_ZYX, order, flips):
    return np.flip(image_ZYX.transpose(order), [axis for axis, flip in enumerate(flips) if flip])


@given(volumes)
def test_every_way_to_lay_a_scan_down_has_one_checksum(image_ZYX):
    # sums of two slices may tie; a tie is broken by how the file lies
    for axis in range(3):
        sums = image_ZYX.sum(axis=tuple(other for other in range(3) if other != axis))
        if sums[0] == sums[-1]:
            return
    if (
        len(set(image_ZYX.shape)) < 3
        and len({image_ZYX.sum(a).sum(b)[0] for a, b in ((1, 1), (0, 1), (0, 0))}) < 3
    ):
        return
    ways = product(permutations(range(3)), product((False, True), repeat=3))
    assert len({voxels_sha256(turned(image_ZYX, *way)[np.newaxis]) for way in ways}) == 1


@given(volumes, st.data())
def test_another_voxel_is_another_scan(image_ZYX, data):
    other_ZYX = image_ZYX.copy()
    index = data.draw(st.tuples(*(st.integers(0, length - 1) for length in image_ZYX.shape)))
    other_ZYX[index] += 0.5
    assert voxels_sha256(other_ZYX[np.newaxis]) != voxels_sha256(image_ZYX[np.newaxis])


def test_the_same_values_in_another_shape_are_another_scan():
    values = np.arange(24, dtype=np.float32)
    assert voxels_sha256(values.reshape(1, 2, 3, 4)) != voxels_sha256(values.reshape(1, 1, 6, 4))


def test_each_channel_has_its_own():
    image_CZYX = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    first, second = voxels_sha256(image_CZYX)
    assert (second, first) == voxels_sha256(image_CZYX[::-1]) and first != second
