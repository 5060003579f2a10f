"""On one machine nobody else reaches the search's Ray: every port is on the loopback."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
START = """
import json, os, psutil
from tune import cluster
from tune.settings import TuneSettings
os.environ |= cluster.environment()
import ray
cluster.start_ray(TuneSettings(resume="x"))
ray.get(ray.remote(lambda: 1).remote())
me = psutil.Process()
processes = [me, *me.children(recursive=True)]
found = [(p.name(), c.laddr.ip) for p in processes for c in p.net_connections("inet") if c.status == "LISTEN"]
print(json.dumps({"listening": found, "mode": os.environ["RAY_AUTH_MODE"]}))
ray.shutdown()
"""


def test_ray_listens_on_the_loopback_alone():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, timeout=250, env=environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    names = {name for name, _ in told["listening"]}
    assert {"gcs_server", "raylet"} <= names
    assert {address for _, address in told["listening"]} <= LOOPBACK
    assert told["mode"] == "token"
