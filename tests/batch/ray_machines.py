"""A Ray cluster of two machines, each in processes of its own, for tests of deaths."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# Whoever has installed Ray for these tests sets SVI_EXPECT_RAY: then they fail without it, rather than being skipped.
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None and not os.environ.get("SVI_EXPECT_RAY"),
    reason="ray is not installed: python -m dev.environment --extra test --extra ray",
)


@contextmanager
def two_machines() -> Iterator:
    """Yield a Cluster that notices soon that a machine is gone; its `second` one may be removed.

    `raylets` are the processes that started the workers of each machine.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    soon = {"health_check_period_ms": 300, "health_check_timeout_ms": 2000, "health_check_failure_threshold": 3}
    settings = {**soon, "worker_niceness": 0}  # Ray's own is 15: a busy machine would not come to it
    machine = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**machine, "include_dashboard": False, "_system_config": settings})
    try:
        cluster.second = cluster.add_node(**machine)
        nodes = (cluster.head_node, cluster.second)
        cluster.raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
        yield cluster
    finally:
        cluster.shutdown()
