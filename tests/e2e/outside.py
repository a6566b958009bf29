# What this machine reaches of the cluster, for tests whose clients are outside the pods.
# On a cluster whose Services it does not reach, these tests are skipped.

import socket
import time

import pytest

from tests.e2e.stage import Stage
from tests.support.kube import get


def listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def address(stage: Stage, service: str) -> str:
    """The address of a Service, if this machine reaches it; else the test is skipped."""
    found: str = get("service", service, namespace=stage.namespace)["spec"]["clusterIP"]
    deadline = time.monotonic() + 15
    # kube-proxy follows a new Service within a moment; a cluster on another machine is never reached.
    while service == "valkey" and not listens(found, 6379):
        if time.monotonic() > deadline:
            pytest.skip("this machine does not reach the cluster's Services")
        time.sleep(0.5)
    return found
