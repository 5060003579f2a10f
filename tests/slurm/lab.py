"""A real Slurm of several nodes on one machine, in namespaces, for tests and drills.

Every machine of the lab is a process with its own network, mount and host name: the controller `ctl`, and nodes
`n1`, `n2`, ... that also have their own processes. Links join them over a bridge in the controller's network; no
packet leaves the machine, and nothing under /etc or /var changes. Each process is tethered to this one: whatever
ends it, even SIGKILL, ends the whole lab.

Needs root, and what tests/setup.sh installs. Written for Slurm 22.05 and later.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from slurm_conf import CONTROLLER_ADDRESS, gres_conf, hosts_file, node_address, slurm_conf

PROGRAMS: Final = ("slurmctld", "slurmd", "munged", "sbatch", "ip", "unshare", "nsenter", "setpriv")
SEARCH_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
TETHER: Final = ("setpriv", "--pdeathsig", "KILL")
ENDED: Final = frozenset(
    {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}
)

Job = dict[str, str]


class LabError(AssertionError):
    """The lab, or a job in it, did not do what the test needs; the message carries the logs."""


def missing() -> str:
    """What keeps a lab from booting here, or nothing."""
    if os.geteuid() != 0:
        return "a Slurm lab needs root"
    absent = [program for program in PROGRAMS if shutil.which(program, path=SEARCH_PATH) is None]
    return f"a Slurm lab needs {', '.join(absent)}: run tests/setup.sh" if absent else ""


def wait_until(ready: Callable[[], bool], seconds: float, or_else: Callable[[], str], pause: float = 0.1) -> None:
    """Poll `ready`; LabError with what `or_else` says when it does not hold within `seconds`."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(or_else())
        time.sleep(pause)


def sweep() -> None:
    """Remove the files of labs whose owner was killed; their processes died with it."""
    for folder in Path(tempfile.gettempdir()).glob("lab-*-*"):
        owner = folder.name.split("-")[1]
        if owner.isdecimal() and not Path("/proc", owner).exists():
            shutil.rmtree(folder, ignore_errors=True)


class Lab:
    """A running Slurm: `with Lab(nodes=4) as lab`.

    Partitions: `batch` (the default; its jobs can be preempted and requeued) and `urgent` (preempts).
    """

    def __init__(self, nodes: int = 4, gpus: int = 0) -> None:
        """`gpus` per node are fake: files that Slurm counts and hands out."""
        self.nodes = tuple(f"n{i + 1}" for i in range(nodes))
        self.gpus = gpus
        sweep()
        # Short, as a socket's path has at most 107 characters; with the owner's id, for `sweep`.
        self.root = Path(tempfile.mkdtemp(prefix=f"lab-{os.getpid()}-"))
        self._machines: dict[str, subprocess.Popen[bytes]] = {}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            self.boot()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Boot and stop

    def boot(self) -> None:
        """Start the controller and every node; returns when all nodes are idle."""
        for folder in ("log", "state", "spool", "gpu"):
            (self.root / folder).mkdir()
        for index in range(self.gpus):
            os.mknod(self.root / "gpu" / str(index), 0o020666, os.makedev(1, 3))
        (self.root / "hosts").write_text(hosts_file(self.nodes))
        (self.root / "slurm.conf").write_text(slurm_conf(self.root, self.nodes, self.gpus))
        (self.root / "gres.conf").write_text(gres_conf(self.root, self.gpus))
        self._boot_controller()
        for node in self.nodes:
            self.start(node)
        self.wait_idle(len(self.nodes))

    def _boot_controller(self) -> None:
        self._unshare("ctl", ["--net", "--mount", "--uts"], ["sleep", "infinity"])
        script = (
            "hostname ctl && mount --bind hosts /etc/hosts && ip link set lo up && ip link add lab type bridge "
            f"&& ip addr add {CONTROLLER_ADDRESS}/24 dev lab && ip link set lab up"
        )
        self.run(["sh", "-ec", script], cwd=self.root)
        (self.root / "munge.key").write_bytes(os.urandom(128))
        (self.root / "munge.key").chmod(0o400)
        munge = {"key-file": "munge.key", "socket": "munge.sock", "log-file": "log/munged.log"}
        munge |= {"pid-file": "munge.pid", "seed-file": "munge.seed"}
        options = [f"--{name}={self.root / file}" for name, file in munge.items()]
        self._daemon("munged", ["munged", "--foreground", "--force", "--num-threads=2", *options])
        wait_until((self.root / "munge.sock").exists, 10, lambda: f"munged is not up\n{self.log('munged')}", pause=0.02)
        self._daemon("slurmctld", ["slurmctld", "-D", "-i"])

    def start(self, node: str) -> None:
        """Switch a node on, the first time or after `kill`."""
        # The shell stays, as the namespace's first process, to reap what jobs leave behind.
        script = (
            f"hostname {node}; until ip -4 addr show eth0 2>/dev/null | grep -q inet; do sleep 0.02; done; "
            f"slurmd -D -N {node} & wait $!"
        )
        isolation = ["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        machine = self._unshare(node, isolation, ["sh", "-c", script])
        link = f"v-{node}"
        self.run(["ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(machine.pid)])
        self.run(["ip", "link", "set", link, "master", "lab", "up"])
        self.run(["ip", "link", "set", "lo", "up"], node=node)
        self.run(["ip", "link", "set", "eth0", "up"], node=node)
        self.run(["ip", "addr", "add", f"{node_address(node)}/24", "dev", "eth0"], node=node)

    def kill(self, node: str) -> None:
        """Cut a node's power: slurmd, its steps and every task end at once."""
        machine = self._machines.pop(node)
        machine.kill()
        machine.wait()
        self.run(["ip", "link", "delete", f"v-{node}"], check=False)  # the kernel may have been faster

    def cut(self, node: str) -> None:
        """Pull a node's network cable; its processes live on."""
        self.run(["ip", "link", "set", f"v-{node}", "down"])

    def heal(self, node: str) -> None:
        """Plug a node's network cable in again."""
        self.run(["ip", "link", "set", f"v-{node}", "up"])

    def stop_controller(self) -> None:
        """Kill slurmctld; jobs run on."""
        daemon = self._daemons.pop("slurmctld")
        daemon.kill()
        daemon.wait()

    def start_controller(self) -> None:
        """Start slurmctld again, with what it knew."""
        self._daemon("slurmctld", ["slurmctld", "-D"])

    def stop(self) -> None:
        """End everything and remove the lab's files. May be called twice."""
        processes = [*self._daemons.values(), *self._machines.values()]
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
        self._daemons.clear()
        self._machines.clear()
        shutil.rmtree(self.root, ignore_errors=True)

    # Commands and jobs

    def run(
        self,
        argv: Sequence[str | Path],
        node: str = "ctl",
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a machine of the lab and wait; LabError with its output when it fails and `check` is set."""
        done = subprocess.run(
            self._enter(node, ["env", "-C", cwd or self.root, *argv]),
            env=self._environment() | dict(env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise LabError(f"{' '.join(map(str, argv))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def sbatch(self, *argv: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> int:
        """Submit a batch script as a user would, from the folder `cwd`; gives the job's id."""
        return int(self.run(["sbatch", "--parsable", *argv], cwd=cwd, env=env).stdout.split(";")[0])

    def job(self, job_id: int) -> Job:
        """What Slurm says of a job: `JobState`, `NodeList`, `Restarts`, `StdOut`, `ExitCode`, ..."""
        shown = self.run(["scontrol", "show", "job", "-o", str(job_id)]).stdout
        return dict(re.findall(r"(\S+?)=(.*?)(?= \S+?=|\s*$)", shown.strip()))

    def output(self, job_id: int) -> str:
        """What a job has printed so far."""
        file = Path(self.job(job_id)["StdOut"])
        return file.read_text(errors="replace") if file.exists() else ""

    def wait(self, job_id: int, *states: str, seconds: float = 60) -> Job:
        """Wait for one of `states`; LabError with the job's output when it ends otherwise or `seconds` pass."""
        deadline = time.monotonic() + seconds
        while (job := self.job(job_id))["JobState"] not in states:
            ended = job["JobState"] in ENDED
            if ended or time.monotonic() > deadline:
                what = "ended as" if ended else f"is after {seconds:.0f} s still"
                raise LabError(
                    f"job {job_id} {what} {job['JobState']} ({job['Reason']}, exit {job['ExitCode']}), not "
                    f"{' or '.join(states)}\n--- its output\n{_tail(self.output(job_id))}\n"
                    f"--- slurmctld\n{self.log('slurmctld')}"
                )
            time.sleep(0.2)
        return job

    def wait_idle(self, nodes: int, seconds: float = 60) -> None:
        """Wait until that many nodes are up and free."""

        def idle() -> bool:
            if dead := [name for name, daemon in self._daemons.items() if daemon.poll() is not None]:
                raise LabError("\n".join(f"{name} ended\n{self.log(name)}" for name in dead))
            answer = self.run(["sinfo", "-h", "-p", "batch", "-t", "idle", "-o", "%D"], check=False)
            return answer.returncode == 0 and sum(map(int, answer.stdout.split())) >= nodes

        def complaint() -> str:
            logs = "\n".join(f"--- {name}\n{self.log(name)}" for name in ("slurmctld", *self.nodes))
            return f"not {nodes} idle nodes after {seconds:.0f} s\n{logs}"

        wait_until(idle, seconds, complaint)

    def log(self, name: str, lines: int = 30) -> str:
        """The end of a log: `slurmctld`, `munged`, or a node's name for its slurmd."""
        file = self.root / "log" / f"{name}.log"
        return _tail(file.read_text(errors="replace"), lines) if file.exists() else f"(no {file.name})"

    # Processes

    def _environment(self) -> dict[str, str]:
        outer = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        return outer | {"SLURM_CONF": str(self.root / "slurm.conf"), "PATH": SEARCH_PATH}

    def _enter(self, name: str, argv: Sequence[str | Path]) -> list[str]:
        machine = self._machines[name]
        return [*TETHER, "nsenter", f"--target={machine.pid}", "--net", "--mount", "--uts", *map(str, argv)]

    def _unshare(self, name: str, isolation: list[str], argv: list[str]) -> subprocess.Popen[bytes]:
        """A new machine: nodes branch off the controller, so they share its hosts file and the folder of the lab."""
        command = ["unshare", *isolation, "--propagation", "private", *argv]
        machine = self._spawn(name, self._enter("ctl", command) if self._machines else [*TETHER, *command])
        others = [os.getpid(), *(other.pid for other in self._machines.values())]

        def apart() -> bool:
            if machine.poll() is not None:
                raise LabError(f"{name} ended at once\n{self.log(name)}")
            return _network(machine.pid) not in map(_network, others)

        wait_until(apart, 10, lambda: f"{name} has no namespace of its own", pause=0.005)
        self._machines[name] = machine
        return machine

    def _daemon(self, name: str, argv: list[str]) -> None:
        self._daemons[name] = self._spawn(name, self._enter("ctl", argv))

    def _spawn(self, name: str, argv: list[str]) -> subprocess.Popen[bytes]:
        with (self.root / "log" / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                argv, env=self._environment(), cwd=self.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )


def _network(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/net").readlink()


def _tail(text: str, lines: int = 30) -> str:
    return "\n".join(text.splitlines()[-lines:])
