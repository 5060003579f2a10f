"""The volume that the network answers in: joints to u, v, z and back, for NumPy arrays and torch tensors alike.

u and v span the crop, z spans the depth range around the pelvis, and each runs over [-0.5, 0.5]. Encoding and
decoding live together because every score depends on one being the other's inverse.
"""

from array_api_compat import array_namespace

from poselib.camera import Array, apply_affine, back_project
from poselib.settings import ModelSettings
from poselib.skeleton import ROOT, mirror_permutation


def encode(
    joints_px: Array,
    joints_mm: Array,
    supervised_px: Array,
    supervised_mm: Array,
    model: ModelSettings,
    *,
    zoom: Array | float = 1.0,
    mask_outside: bool = False,
) -> tuple[Array, Array]:
    """Joints to training targets.

    Args:
        joints_px: `... j 2` px, crop.
        joints_mm: `... j 3` mm, camera frame; only z is read.
        supervised_px: `... j`, 1 where `joints_px` is known, else 0.
        supervised_mm: `... j`, 1 where `joints_mm` is known, else 0.
        model: the crop's size and the depth range.
        zoom: `...` or one number, divides z: how much larger the person appears in the crop through augmentation.
            1 where a run does not scale z with the zoom.
        mask_outside: whether a joint outside the volume gets weight 0.

    Returns:
        Targets u, v, z `... j 3` in volume units, and their weights `... j 3`. Depth counts from the pelvis, so
        without a known pelvis no z is supervised.
    """
    xp = array_namespace(joints_px)
    u = joints_px[..., 0] / model.crop_width - 0.5
    v = joints_px[..., 1] / model.crop_height - 0.5
    depth_mm = joints_mm[..., 2] - joints_mm[..., ROOT, None, 2]
    targets = xp.stack([u, v, depth_mm / model.depth_range_mm / _per_joint(zoom)], axis=-1)
    weights = xp.stack([supervised_px, supervised_px, supervised_mm * supervised_mm[..., ROOT, None]], axis=-1)
    if mask_outside:
        # Where z is unknown it does not put a joint outside.
        inside = xp.all((xp.abs(targets) <= 0.5) | (weights == 0), axis=-1, keepdims=True)
        weights = xp.where(inside, weights, xp.zeros_like(weights))
    return targets, weights


def decode(
    uvz: Array,
    stored_from_crop: Array,
    root_depth_mm: Array,
    intrinsics: Array,
    distortion: Array | None,
    model: ModelSettings,
    *,
    zoom: Array | float = 1.0,
) -> Array:
    """The network's answer to the camera frame, the inverse of `encode`.

    Args:
        uvz: `... j 3`, volume units.
        stored_from_crop: `... 2 3`, affine map from crop pixels to those that the intrinsics are meant for.
        root_depth_mm: `...` mm, depth of the pelvis in the camera frame, from the ground truth or estimated.
        intrinsics: `... 4`, fx fy cx cy in px.
        distortion: `... 5` as in `poselib.camera.distort`, or None for a pinhole.
        model: the crop's size and the depth range.
        zoom: as given to `encode`.

    Returns:
        `... j 3` mm, camera frame, absolute. Through the map of a mirrored crop, left and right joints come out
        swapped.
    """
    depth_mm = uvz[..., 2] * model.depth_range_mm * _per_joint(zoom) + root_depth_mm[..., None]
    return back_project(apply_affine(stored_from_crop, to_crop_px(uvz, model)), depth_mm, intrinsics, distortion)


def to_crop_px(uvz: Array, model: ModelSettings) -> Array:
    """u, v (and z, which is left out) `... j 3` to crop pixels `... j 2`."""
    xp = array_namespace(uvz)
    return xp.stack([(uvz[..., 0] + 0.5) * model.crop_width, (uvz[..., 1] + 0.5) * model.crop_height], axis=-1)


def mirror(uvz: Array) -> Array:
    """What the answer `... 17 3` to a mirrored crop says of the unmirrored one: -u, left and right joints swapped."""
    xp = array_namespace(uvz)
    swapped = uvz[..., mirror_permutation().tolist(), :]
    return xp.concat([-swapped[..., :1], swapped[..., 1:]], axis=-1)


def flip_average(uvz: Array, of_mirrored: Array) -> Array:
    """The flip test's answer: the mean of a crop's `... 17 3` and what the mirrored crop's says of it."""
    return (uvz + mirror(of_mirrored)) / 2


def _per_joint(zoom: Array | float) -> Array | float:
    """A number per sample `...`, ready to multiply `... j`."""
    return zoom if isinstance(zoom, float | int) else zoom[..., None]
