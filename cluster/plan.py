"""What a run will do in a world: batch, accumulation, learning rate, steps; known before any rank is started."""

from dataclasses import dataclass, replace

from cluster.data import open_data
from cluster.preflight import global_batch
from cluster.schedule import Schedule
from cluster.settings import Run
from shards.order import share


@dataclass(frozen=True)
class Plan:
    """A run's numbers.

    Attributes:
        world_size: ranks.
        micro: samples of a forward pass.
        global_batch: samples of an optimiser step.
        accumulation: micro-batches of each rank in a step.
        lr: learning rate, scaled with the batch; after the warm-up, before the first milestone.
        lr_set: as the settings give it.
        epoch_size: samples of an epoch.
        steps: of the whole run.
        epochs: of the whole run.
    """

    world_size: int
    micro: int
    global_batch: int
    accumulation: int
    lr: float
    lr_set: float
    epoch_size: int
    steps: int
    epochs: int

    @property
    def steps_per_epoch(self) -> float:
        """No whole number where an epoch's last step goes on into the next epoch."""
        return self.epoch_size / self.global_batch


def make_plan(run: Run, world_size: int) -> Plan:
    """The numbers of a run; one whose folder stands there keeps its batch.

    Raises:
        InputError: the shard sets cannot be read, or the world does not divide the batch.
    """
    run = replace(run, batch=replace(run.batch, global_=global_batch(run, world_size)))
    accumulation = len(share(0, run.batch.global_ // run.batch.micro, 0, world_size))
    size = open_data(run).order.epoch_places
    schedule = Schedule(run.optimizer, size, run.batch.global_, run.epochs, run.validate_every)
    warm = replace(schedule, optimizer=replace(run.optimizer, warmup_steps=0))
    return Plan(
        world_size=world_size,
        micro=run.batch.micro,
        global_batch=run.batch.global_,
        accumulation=accumulation,
        lr=warm.lr(0),
        lr_set=run.optimizer.lr,
        epoch_size=size,
        steps=schedule.steps,
        epochs=run.epochs,
    )


def describe(plan: Plan, run: Run, nodes: int, ranks: int) -> list[str]:
    """The plan in lines of a name and a value."""
    optimizer = run.optimizer
    scaled = f"{optimizer.lr_scale} scaling of {plan.lr_set:g} at {optimizer.reference_batch}"
    rate = scaled if optimizer.lr_scale != "none" else "not scaled"
    warm = f", after {optimizer.warmup_steps} steps of warm-up" if optimizer.warmup_steps else ""
    return [
        f"world            {plan.world_size} = {nodes} node{'s' * (nodes > 1)} x {ranks} rank{'s' * (ranks > 1)}",
        f"micro batch      {plan.micro}",
        f"global batch     {plan.global_batch}",
        f"accumulation     {plan.accumulation}",
        f"learning rate    {plan.lr:.6g} ({rate}{warm})",
        f"steps per epoch  {plan.steps_per_epoch:g} ({plan.epoch_size} samples)",
        f"steps            {plan.steps} in {plan.epochs} epochs",
    ]
