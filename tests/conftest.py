"""What all tests stand on: a quiet environment, checked tensor shapes, a small studio, and no silent skip in CI."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# torch, DeepSpeed, Ray and MLflow read these when they are imported; processes that tests start inherit them.
_QUIET = {
    "OMP_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_NO_GPU = {} if Path("/dev/nvidia0").exists() else {"DS_ACCELERATOR": "cpu"}
for _name, _value in (_QUIET | _NO_GPU).items():
    os.environ.setdefault(_name, _value)

# Every annotated shape and type in poselib is checked on every call that a test makes.
install_import_hook("poselib", "beartype.beartype")


class SkipGuard:
    """In CI a skipped test fails the session: only `gpu` tests may be skipped, as no CI machine has a GPU."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def _judge(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        expected_failure = hasattr(report, "wasxfail")
        if report.skipped and not expected_failure and "gpu" not in report.keywords:
            self.refused.append(report.nodeid)

    pytest_runtest_logreport = _judge
    pytest_collectreport = _judge

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.refused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for nodeid in self.refused:
            terminalreporter.write_line(f"SKIPPED IN CI, which is a failure: {nodeid}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI") == "true":
        config.pluginmanager.register(SkipGuard(), "skip-guard")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny raw studio: `h36m/`, `mpii/` and `voc/` in the layouts of the real sets. Read only."""
    from shards.settings import StudioSettings
    from shards.studio.make import make_studio

    out = tmp_path_factory.mktemp("studio")
    make_studio(
        StudioSettings(
            out=out,
            frames=4,
            frame_px=256,
            subjects=("S1", "S9"),
            actions=("Directions", "Sitting"),
            mpii_pictures=12,
            voc_pictures=4,
            workers=1,
        )
    )
    return out


@pytest.fixture(scope="session")
def shard_sets(studio: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished shard sets of the studio by source: `h36m`, `mpii`, `voc`. Read only."""
    from shards.build import build
    from shards.settings import BuildSettings

    out = tmp_path_factory.mktemp("shards")
    sets = {source: out / source for source in ("h36m", "mpii", "voc")}
    for source, folder in sets.items():
        build(BuildSettings(raw=studio / source, out=folder, stored_px=96, every=1, every_test=2, workers=1))
    return sets
