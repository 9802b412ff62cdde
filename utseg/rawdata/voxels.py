"""A checksum of what an image shows, the same whatever file holds it: container, voxel type, compression, order and direction of axes.

Two files with equal checksums are one scan under two names. Values are compared as the gate gives them; a rescaled copy is another scan.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray


def voxels_sha256(image_CZYX: NDArray[np.float32]) -> tuple[str, ...]:
    """SHA-256 of each channel's voxels, whichever way round its axes lie. A channel of one value says nothing of a scan, and has none."""
    return tuple(_sha256(image_ZYX) for image_ZYX in image_CZYX if image_ZYX.min() != image_ZYX.max())


def _sha256(image_ZYX: NDArray[np.float32]) -> str:
    turned = _in_one_way(image_ZYX)
    digest = hashlib.sha256(str(turned.shape).encode())
    digest.update(np.ascontiguousarray(turned).data)
    return digest.hexdigest()


def _in_one_way(image_ZYX: NDArray[np.float32]) -> NDArray[np.float32]:
    """One of the 48 copies that axis orders and flips give: the same one of each of them.

    Decided by the sums of the slices along each axis, which a flip reverses and a permutation moves.
    """
    sums = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        along = image_ZYX.sum(axis=others, dtype=np.float64).tolist()
        if along[::-1] < along:
            along.reverse()
            image_ZYX = np.flip(image_ZYX, axis)
        sums.append(along)
    return image_ZYX.transpose(sorted(range(3), key=lambda axis: (len(sums[axis]), sums[axis])))
