"""The DALI graph: encoded crops, matrices and objects in, uint8 crops out. DALI only moves pixels; the plan decides.

One graph for both devices: external source, decode, one warp (crop, zoom, rotation and mirror in one matrix), then the
objects, one over the other. On the GPU decoding is `mixed` (JPEG engines, then CUDA), and warp and paste are DALI's:
each object is warped onto the crop's canvas and blended by arithmetic, and only for those crops of a batch that have
as many objects. On the CPU all three are OpenCV's, in one node of the graph: DALI's own warp was measured 3 to 4 times
slower there; a picture that is warped as soon as it is decoded is still in the processor's cache; and an object costs
its own rectangle alone. Both decode by libjpeg-turbo on the CPU, to the same pixels. A run without objects has no
nodes for them.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import cv2
import numpy as np
from nvidia.dali import fn, pipeline_def
from nvidia.dali.types import DALIDataType, DALIImageType, DALIInterpType

from shards.occlude import Layers, paste

Feed = Callable[[], tuple[list[np.ndarray], np.ndarray, Layers | None]]
"""Gives the next micro-batch: JPEG bytes (uint8 `n` each), `stored_from_crop` matrices (float32 `b 2 3`), and what is
pasted, None where the graph was built for no objects. Raises StopIteration at the end."""


class Graph:
    """A running DALI graph; a context manager, for its threads must end before what they call into."""

    def __init__(
        self, pipeline: Any, finished: "deque[np.ndarray] | None" = None, pool: ThreadPoolExecutor | None = None
    ) -> None:
        self._pipeline, self._finished, self._pool = pipeline, finished, pool

    def run(self) -> Any:
        """The next crops, uint8 `b h w 3` RGB.

        From the GPU, a DALI tensor list that the next call overwrites; from the CPU, an array that is the caller's.

        Raises:
            StopIteration: the feed has ended, and all its batches were handed out.
            RuntimeError: a picture cannot be decoded.
        """
        (crops,) = self._pipeline.run()
        return crops if self._finished is None else self._finished.popleft()

    def close(self) -> None:
        """Wait for the batch in work, drop those made ahead, and end all threads. May be called again."""
        self._pipeline._shutdown()
        if self._pool is not None:
            self._pool.shutdown()

    def __enter__(self) -> "Graph":
        """The graph itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all threads, whatever happened."""
        self.close()


def build_pipeline(
    feed: Feed,
    batch: int,
    width: int,
    height: int,
    device: Literal["cpu", "gpu"],
    device_id: int,
    threads: int,
    prefetch: int,
    objects: int = 0,
    hw_decoder_load: float = 0.65,
) -> Graph:
    """A built DALI graph.

    Args:
        feed: called once per micro-batch, `prefetch` batches ahead.
        batch: largest micro-batch.
        width: of the crop, px.
        height: of the crop, px.
        device: where pixels are decoded, warped and pasted, and where the crops lie then.
        device_id: which GPU.
        threads: CPU threads.
        prefetch: batches made ahead.
        objects: most objects on a crop.
        hw_decoder_load: share of the pictures that go to the GPU's JPEG engines.
    """
    cv2.setNumThreads(1)  # the graph's threads are the parallelism; OpenCV's own would fight over the same cores
    if device == "gpu":
        define = _dali_graph(feed, width, height, objects, hw_decoder_load)
        pipeline = define(batch_size=batch, num_threads=threads, device_id=device_id, prefetch_queue_depth=prefetch)
        pipeline.build()
        return Graph(pipeline)
    pool = ThreadPoolExecutor(threads, "cut") if threads > 1 else None
    finished: deque[np.ndarray] = deque()
    define = _opencv_graph(feed, width, height, finished, pool, threads)
    pipeline = define(batch_size=batch, num_threads=1, device_id=None, prefetch_queue_depth=prefetch)
    pipeline.build()
    return Graph(pipeline, finished, pool)


def _opencv_graph(
    feed: Feed, width: int, height: int, finished: "deque[np.ndarray]", pool: ThreadPoolExecutor | None, threads: int
) -> Callable[..., Any]:
    """The graph of the CPU. OpenCV writes the crops of a batch into one new array, which goes to `finished`; what the
    graph itself puts out is empty. Matrices and objects wait outside of it too. So DALI copies nothing but bytes."""
    empty = np.zeros(1, np.uint8)
    fed: deque[tuple[np.ndarray, Layers | None]] = deque()  # the graph works on its batches in their order

    def source() -> list[np.ndarray]:
        jpegs, matrices, layers = feed()
        # Our pixel centres sit at +0.5, OpenCV's at integers.
        matrices = matrices.astype(np.float64)
        matrices[..., 2] += matrices[..., :2] @ [0.5, 0.5] - [0.5, 0.5]
        fed.append((matrices, layers))
        return jpegs

    def cut(jpegs: list[np.ndarray]) -> list[np.ndarray]:
        matrices, layers = fed.popleft()
        crops = np.empty((len(jpegs), height, width, 3), np.uint8)

        def share(first: int) -> None:
            for place in range(first, len(jpegs), threads):
                _cut(jpegs[place], matrices[place], crops[place])
                if layers is not None:
                    _paste_all(crops[place], layers, place)

        if pool is None:
            share(0)
        else:
            list(pool.map(share, range(threads)))
        finished.append(crops)
        return [empty] * len(crops)

    @pipeline_def
    def graph() -> Any:
        return fn.python_function(fn.external_source(source), function=cut, num_outputs=1, batch_processing=True)

    return graph


def _cut(jpeg: np.ndarray, stored_from_crop: np.ndarray, crop: np.ndarray) -> None:
    """Decode a picture, and warp it into a crop, uint8 `h w 3` RGB, by a matrix for OpenCV's pixel centres.

    Raises:
        ValueError: it cannot be decoded.
    """
    picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB) if len(jpeg) else None
    if picture is None:
        raise ValueError("a picture cannot be decoded")
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cv2.warpAffine(picture, stored_from_crop, crop.shape[1::-1], dst=crop, flags=flags)


def _paste_all(crop: np.ndarray, layers: Layers, place: int) -> None:
    """Paste the objects of one crop of a batch over it."""
    for picture, matrix in zip(layers.pictures[place], layers.object_from_crop[place], strict=False):
        paste(crop, picture, matrix)


def _dali_graph(
    feed: Feed, width: int, height: int, objects: int, hw_decoder_load: float, on_gpu: bool = True
) -> Callable[..., Any]:
    """The graph of the GPU; `on_gpu=False` runs the same operators on the CPU, which tests can do without a GPU."""
    layouts = ["", "", *[""] * objects, *["HWC"] * objects, ""] if objects else ["", ""]
    source = _layered(feed, objects)  # made out here, or DALI would rewrite its `if` and `for` as those of the graph

    def place(node: Any) -> Any:
        return node.gpu() if on_gpu else node

    def graph() -> Any:
        inputs = fn.external_source(source, num_outputs=len(layouts), layout=layouts)
        crop = _warp(_decode(inputs[0], on_gpu, hw_decoder_load), place(inputs[1]), width, height)
        for layer in range(objects):
            if inputs[-1] > layer:  # a crop with fewer objects takes no part: nothing is copied or computed for it
                matrix, picture = place(inputs[2 + layer]), place(inputs[2 + objects + layer])
                crop = _blend(crop, _warp(picture, matrix, width, height))
        return crop

    # For conditions DALI reads this file's source again, which may have changed since a long run began: where there
    # are none, as in every validation, it must not.
    return pipeline_def(enable_conditionals=bool(objects))(graph)


def _decode(encoded: Any, on_gpu: bool, hw_decoder_load: float) -> Any:
    """DALI nodes: uint8 `h w 3` RGB."""
    if on_gpu:
        return fn.decoders.image(
            encoded, device="mixed", output_type=DALIImageType.RGB, hw_decoder_load=hw_decoder_load
        )
    return fn.decoders.image(encoded, device="cpu", output_type=DALIImageType.RGB)


def _warp(picture: Any, matrix: Any, width: int, height: int) -> Any:
    """DALI nodes: the picture on a canvas, 0 where it has nothing; `matrix` leads from the canvas to the picture."""
    return fn.warp_affine(
        picture,
        matrix,
        size=[height, width],
        inverse_map=True,
        interp_type=DALIInterpType.INTERP_LINEAR,
        fill_value=0,
    )


def _blend(crop: Any, layer: Any) -> Any:
    """DALI nodes: a premultiplied RGBA layer over a crop; rounded and clamped."""
    return fn.cast(crop * (1.0 - layer[:, :, 3:] / 255.0) + layer[:, :, :3], dtype=DALIDataType.UINT8)


def _layered(feed: Feed, objects: int) -> Callable[[], tuple[Any, ...]]:
    """The feed with the objects by layer: the maps and pictures of all first ones, of all second ones; then counts."""
    none = np.zeros((1, 1, 4), np.uint8)

    def source() -> tuple[Any, ...]:
        jpegs, matrices, layers = feed()
        if not objects or layers is None:
            return jpegs, matrices
        maps = [np.ascontiguousarray(layers.object_from_crop[:, layer]) for layer in range(objects)]
        pictures = [
            [parts[layer] if layer < len(parts) else none for parts in layers.pictures] for layer in range(objects)
        ]
        return jpegs, matrices, *maps, *pictures, np.array([len(parts) for parts in layers.pictures], np.int32)

    return source
