"""Bake the studio's bodies into `bodies.npz`. Run once; the result is committed.

    pip install -e '.[bake]'
    python -m shards.studio.bake

The bodies come from `anny` (code: Apache-2.0), whose mesh, rig, weights and shapes are MakeHuman's (CC0). The first
construction of its model takes about two minutes and fills a cache of several hundred megabytes, which is why the
studio reads what is baked here instead.

Arrays of `bodies.npz` (b bodies, v vertices, f triangles, n bones, p landmarks):
    vertices   `b v 3` int16, 0.1 mm, rest pose: z up, the person faces -y, its left hand is at +x
    faces      `f 3` int16
    heads      `b n 3` int16, 0.1 mm: where each bone begins
    parents    `n` int8
    landmarks  `b p 3` int16, 0.1 mm: the 17 joints of Human3.6M, then toes and fingers (`body.LANDMARKS`)
    carriers   `p` int8: the bone that carries each landmark
    indices    `v 4` uint8, weights `v 4` uint8: skin weights, which sum to 255
"""

from pathlib import Path
from typing import Any

import numpy as np

from shards.studio.body import BODIES_FILE, BONE_PARENTS, BONES, LANDMARK_BONES

# gender (0 male), age, muscle, weight, height, proportions, and three shares of looks that MakeHuman blends.
PHENOTYPES = {
    "S1": (1.0, 0.62, 0.50, 0.45, 0.45, 0.55, 0.0, 0.0, 1.0),
    "S5": (1.0, 0.65, 0.45, 0.62, 0.30, 0.45, 0.0, 0.5, 0.5),
    "S6": (0.0, 0.65, 0.55, 0.50, 0.55, 0.60, 0.0, 0.0, 1.0),
    "S7": (1.0, 0.70, 0.60, 0.35, 0.55, 0.65, 0.7, 0.0, 0.3),
    "S8": (0.0, 0.75, 0.70, 0.60, 0.65, 0.55, 0.0, 0.2, 0.8),
    "S9": (0.0, 0.70, 0.45, 0.72, 0.50, 0.40, 0.2, 0.4, 0.4),
    "S11": (0.0, 0.62, 0.60, 0.38, 0.72, 0.70, 0.3, 0.0, 0.7),
    "extra1": (1.0, 0.80, 0.40, 0.75, 0.40, 0.40, 0.0, 0.0, 1.0),
    "extra2": (0.0, 0.60, 0.80, 0.55, 0.60, 0.70, 1.0, 0.0, 0.0),
    "extra3": (0.5, 0.60, 0.50, 0.30, 0.50, 0.60, 0.0, 1.0, 0.0),
    "extra4": (0.0, 0.85, 0.40, 0.85, 0.45, 0.35, 0.0, 0.0, 1.0),
    "extra5": (1.0, 0.60, 0.55, 0.50, 0.70, 0.70, 0.4, 0.3, 0.3),
}
STATURES_M = {
    **{"S1": 1.64, "S5": 1.58, "S6": 1.79, "S7": 1.71, "S8": 1.83, "S9": 1.75, "S11": 1.89},
    **{"extra1": 1.62, "extra2": 1.81, "extra3": 1.69, "extra4": 1.77, "extra5": 1.73},
}
LABELS = ("gender", "age", "muscle", "weight", "height", "proportions", "african", "asian", "caucasian")


def _kept(label: str, model: Any) -> int:
    """The index in `BONES` of the nearest kept ancestor of a bone of the model."""
    while label not in BONES:
        parent = model.bone_parents[model.bone_labels.index(label)]
        label = model.bone_labels[parent] if parent >= 0 else "pelvis"
    return BONES.index(label)


def _skin(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """The four strongest of the kept bones for each vertex: indices and weights `v 4`, uint8."""
    indices, weights = model.vertex_bone_indices.numpy(), model.vertex_bone_weights.numpy()
    full = np.zeros((len(indices), len(BONES)))
    fold = np.array([_kept(label, model) for label in model.bone_labels])
    for column in range(indices.shape[1]):
        np.add.at(full, (np.arange(len(full)), fold[indices[:, column]]), weights[:, column])
    order = np.argsort(-full, axis=1, kind="stable")[:, :4]
    best = np.take_along_axis(full, order, axis=1)
    best = np.round(255 * best / best.sum(axis=1, keepdims=True)).astype(int)
    best[:, 0] += 255 - best.sum(axis=1)
    return order.astype(np.uint8), best.astype(np.uint8)


def _landmarks(heads: dict[str, np.ndarray], tails: dict[str, np.ndarray], head_skin: np.ndarray) -> np.ndarray:
    """The landmarks of one body in metres, in the order of `body.LANDMARKS`; `head_skin` are the head's vertices."""
    middle = head_skin[np.abs(head_skin[:, 0]) < 0.03]
    top = middle[middle[:, 2].argmax()] - [0, 0, 0.012]
    low, high = middle[:, 2].min(), middle[:, 2].max()
    face = middle[(middle[:, 2] > low + 0.3 * (high - low)) & (middle[:, 2] < low + 0.7 * (high - low))]
    nose = face[face[:, 1].argmin()] + [0, 0.03, 0]
    for point in (top, nose):
        point[0] = 0.0
    legs = {side: [heads[f"{bone}_{side}"] for bone in ("thigh", "calf", "foot")] for side in "rl"}
    arms = {side: [heads[f"{bone}_{side}"] for bone in ("upperarm", "lowerarm", "hand")] for side in "rl"}
    pelvis = (legs["r"][0] + legs["l"][0]) / 2
    trunk = [pelvis, *legs["r"], *legs["l"], heads["spine_02"], heads["neck_01"], nose, top, *arms["l"], *arms["r"]]
    toes = [point for side in "rl" for point in (heads[f"ball_{side}"], tails[f"ball_{side}"])]
    fingers = [tails[f"{bone}_{side}"] for side in "lr" for bone in ("thumb_03", "middle_03")]
    return np.array(trunk + toes + fingers)


def main() -> None:
    """Build every body and write the file."""
    import anny
    import torch

    model = anny.Anny(
        rig="game_engine", topology="notoes_collapse10pc", phenotypes="all", phenotype_blendshapes="original"
    )
    indices, weights = _skin(model)
    on_head = indices[:, 0] == BONES.index("head")
    vertices, bone_heads, landmarks = [], [], []
    for name, values in PHENOTYPES.items():
        with torch.no_grad():
            body = model(phenotype_kwargs=dict(zip(LABELS, values, strict=True)), return_bone_ends=True)
        rest = body["rest_vertices"][0].numpy()
        heads = dict(zip(model.bone_labels, body["rest_bone_heads"][0].numpy(), strict=True))
        tails = dict(zip(model.bone_labels, body["rest_bone_tails"][0].numpy(), strict=True))
        scale = STATURES_M[name] / np.ptp(rest[:, 2])
        vertices.append(scale * rest)
        bone_heads.append([scale * heads[bone] for bone in BONES])
        landmarks.append(scale * _landmarks(heads, tails, rest[on_head]))

    def tenths(metres: Any) -> np.ndarray:
        return np.round(np.array(metres) * 10_000).astype(np.int16)

    target = Path(BODIES_FILE)
    with target.open("wb") as stream:
        np.savez_compressed(
            stream,
            names=np.array(list(PHENOTYPES)),
            vertices=tenths(vertices),
            faces=model.get_triangular_faces().numpy().astype(np.int16),
            heads=tenths(bone_heads),
            parents=np.array(BONE_PARENTS, np.int8),
            landmarks=tenths(landmarks),
            carriers=np.array([BONES.index(bone) for bone in LANDMARK_BONES], np.int8),
            indices=indices,
            weights=weights,
        )
    print(f"{target}: {len(PHENOTYPES)} bodies, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
