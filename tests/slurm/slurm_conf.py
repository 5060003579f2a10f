"""The files of a lab's Slurm: slurm.conf, gres.conf, hosts. Pure text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

CONTROLLER_ADDRESS: Final = "10.77.0.254"

_SLURM_CONF: Final = """\
ClusterName=lab
SlurmctldHost=ctl
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits for cred_expire before it is eligible: 120 s by default, and again for any value under 5.
AuthInfo=socket={root}/munge.sock,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/spool/%n.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={root}/log/finished.log
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# Fake hardware: what NodeName says counts, not what the machine has.
SlurmdParameters=config_overrides
{gres_types}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# A preempted job gets the signal of its --signal first.
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
ReturnToService=2
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
SlurmctldTimeout=10
SlurmdTimeout=5
KillWait=3
# Under a minute, healthy nodes were drained.
UnkillableStepTimeout=60
{nodes}
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=100 PreemptMode=OFF
"""


def node_address(node: str) -> str:
    """The address of node `n7`: 10.77.0.7."""
    return f"10.77.0.{int(node.removeprefix('n'))}"


def hosts_file(nodes: Sequence[str]) -> str:
    """Names of the lab's machines; each resolves to its own address, which gloo needs."""
    lines = ["127.0.0.1 localhost", f"{CONTROLLER_ADDRESS} ctl", *(f"{node_address(node)} {node}" for node in nodes)]
    return "\n".join(lines) + "\n"


def slurm_conf(root: Path, nodes: Sequence[str], gpus: int) -> str:
    """slurm.conf of a lab that lives in `root`."""
    gres = f" Gres=gpu:{gpus}" if gpus else ""
    lines = [f"NodeName={node} CPUs=8 RealMemory=16000{gres} State=UNKNOWN" for node in nodes]
    return _SLURM_CONF.format(root=root, nodes="\n".join(lines), gres_types="GresTypes=gpu" if gpus else "")


def gres_conf(root: Path, gpus: int) -> str:
    """gres.conf: fake GPUs are null devices."""
    return "".join(f"Name=gpu File={root}/gpu/{index}\n" for index in range(gpus))
