"""The same few validation samples after every epoch: what the network makes of them, for MLflow's row of pictures."""

from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch

from cluster.evaluate import evaluation_batches
from cluster.settings import Run
from poselib.drawing import contact_sheet, draw_skeleton
from poselib.model.network import PoseNetwork
from poselib.volume import to_crop_px
from shards.atomic import write_whole
from shards.loader import Source

FOLDER: Final = "pictures"
SAMPLES: Final = 8
_SIDE_PX: Final = 256


@torch.no_grad()
def write_epoch_picture(run: Run, network: PoseNetwork, source: Source, step: int, device: torch.device) -> Path:
    """Draw samples evenly over a source, predicted beside true; the picture's place in the run's folder.

    The network is left in the mode that it was in. For one rank: nothing here waits for others.
    """
    places = np.linspace(0, len(source.rows) - 1, min(SAMPLES, len(source.rows))).astype(int)
    was_training = network.training
    network.eval()
    views, titles = [], []
    for batch in evaluation_batches(run, source, len(places), device, 1, places=np.unique(places)):
        uvz = network(batch.inputs).float().cpu().numpy()
        for row, crop in enumerate(batch.pictures.cpu().numpy()):
            scale = max(1.0, _SIDE_PX / crop.shape[0])
            large = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
            for title, joints in (("predicted", uvz[row]), ("true", batch.plan.targets[row])):
                views.append(draw_skeleton(large, to_crop_px(joints, run.model) * scale))
                titles.append(title)
    network.train(was_training)
    done, data = cv2.imencode(".jpg", contact_sheet(views, 4, titles)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert done
    place = Path(FOLDER) / f"val-{step:08d}.jpg"
    (run.folder / place).parent.mkdir(parents=True, exist_ok=True)
    write_whole(run.folder / place, data.tobytes())
    return place
