"""The DALI graph: encoded crops and matrices in, uint8 crops out. DALI only moves pixels; the plan decides.

One graph for both devices: external source, decode, one warp. On the GPU decoding is `mixed` (JPEG engines, then CUDA)
and the warp is DALI's. On the CPU the warp is OpenCV's inside the graph: DALI's own was measured 3 to 4 times slower.
"""

from collections.abc import Callable
from typing import Any, Literal

import cv2
import numpy as np
from nvidia.dali import fn, pipeline_def
from nvidia.dali.types import DALIImageType, DALIInterpType

Feed = Callable[[], tuple[list[np.ndarray], np.ndarray]]
"""Gives the next micro-batch: JPEG bytes (uint8 `n` each) and `stored_from_crop` matrices (float32 `b 2 3`)."""


def build_pipeline(
    feed: Feed,
    batch: int,
    width: int,
    height: int,
    device: Literal["cpu", "gpu"],
    device_id: int,
    threads: int,
    prefetch: int,
) -> Any:
    """A built DALI pipeline whose `run()` returns crops, uint8 `b h w 3` RGB, on `device`.

    Args:
        feed: called once per micro-batch, `prefetch` batches ahead.
        batch: largest micro-batch.
        width: of the crop, px.
        height: of the crop, px.
        device: where pixels are decoded and warped.
        device_id: which GPU.
        threads: CPU threads.
        prefetch: batches made ahead.
    """

    cv2.setNumThreads(1)  # DALI's threads are the parallelism; OpenCV's own would fight over the same cores

    def warp(picture: np.ndarray, stored_from_crop: np.ndarray) -> np.ndarray:
        # Our pixel centres sit at +0.5, OpenCV's at integers.
        matrix = stored_from_crop.astype(np.float64)
        matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - [0.5, 0.5]
        return cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)

    @pipeline_def(
        batch_size=batch,
        num_threads=threads,
        device_id=device_id if device == "gpu" else None,  # type: ignore[arg-type]
        prefetch_queue_depth=prefetch,
    )
    def graph() -> Any:
        encoded, matrices = fn.external_source(feed, num_outputs=2, batch=True)
        if device == "cpu":
            pictures = fn.decoders.image(encoded, device="cpu", output_type=DALIImageType.RGB)
            return fn.python_function(pictures, matrices, function=warp, num_outputs=1)
        pictures = fn.decoders.image(encoded, device="mixed", output_type=DALIImageType.RGB)
        return fn.warp_affine(
            pictures,
            matrices.gpu(),
            size=[height, width],
            inverse_map=True,
            interp_type=DALIInterpType.INTERP_LINEAR,
            fill_value=0,
        )

    pipeline = graph()
    pipeline.build()
    return pipeline
