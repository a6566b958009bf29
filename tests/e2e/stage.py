# A namespace with a Valkey and an ImCluster, and the clients in it: what the e2e tests act on.
# Works on any cluster that KUBECONFIG names; images are named by IM_E2E_IMSERVER, IM_E2E_OPERATOR and IM_E2E_VALKEY.

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.kube import apply, get, kubectl, run

HERE = Path(__file__).resolve().parent
IMSERVER = os.environ.get("IM_E2E_IMSERVER", "localhost/imserver:dev")
OPERATOR = os.environ.get("IM_E2E_OPERATOR", "localhost/operator:dev")
VALKEY = os.environ.get("IM_E2E_VALKEY", "localhost/valkey:9")
LABEL = "imcluster.io/e2e=true"
Json = dict[str, Any]
# Prints the epoch and the publisher of a prefix at each change, for five minutes at most.
_FOLLOW = """import redis,sys,time
r,last,end=redis.Redis("valkey",decode_responses=True),None,time.time()+300
while time.time()<end:
    p=r.pipeline().hget("{im}:topo","epoch").hget("{im}:pub","instance").execute()
    if p!=last: print(*p,flush=True)
    last=p
    time.sleep(.05)
"""


def wait_for(what: str, ask: Callable[[], Any], timeout: float = 120, pause: float = 0.5) -> Any:
    """Ask until the answer is true, and answer it; AssertionError with the last answer after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what} did not come within {timeout:g} s"
        time.sleep(pause)


def _container(name: str, image: str, **more: Any) -> Json:
    return {"name": name, "image": image, "imagePullPolicy": "IfNotPresent"} | more


class Stage:
    """What one test puts into the namespace of the e2e tests; `close` removes it."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.password: str | None = None

    def kubectl(self, *arguments: str, text: str | None = None, timeout: float = 60) -> str:
        return kubectl("-n", self.namespace, *arguments, text=text, timeout=timeout)

    def close(self) -> None:
        self.kubectl("delete", "imc", "--all", "--timeout=90s", timeout=100)
        self.kubectl("delete", "deploy,svc,secret,configmap", "-l", LABEL, "--timeout=60s", timeout=70)
        self.kubectl("delete", "pod", "traffic", "--ignore-not-found", "--force", "--grace-period=0")
        wait_for("the pods to go", lambda: not self.kubectl("get", "pods", "-o", "name"), 60)

    def apply(self, *manifests: Json) -> None:
        """Apply manifests under the label by which `close` finds them."""
        key, _, value = LABEL.partition("=")
        for manifest in manifests:
            manifest["metadata"].setdefault("labels", {})[key] = value
        apply(*manifests, namespace=self.namespace)

    # Redis.

    def valkey(self, name: str = "valkey", password: str | None = None) -> None:
        """A Valkey whose append-only file outlives its process, as long as its pod is there."""
        self.password = password
        args = ["--protected-mode", "no", "--save", "", "--appendonly", "yes", "--dir", "/data"]
        args += ["--maxmemory-policy", "noeviction", *(["--requirepass", password] if password else [])]
        pod = {
            "containers": [
                _container("valkey", VALKEY, args=args, volumeMounts=[{"name": "data", "mountPath": "/data"}])
            ],
            "volumes": [{"name": "data", "emptyDir": {}}],
            "terminationGracePeriodSeconds": 1,
        }
        labels = {"app": name}
        template = {"metadata": {"labels": labels}, "spec": pod}
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name},
                "spec": {"selector": labels, "ports": [{"port": 6379}]},
            },
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name},
                "spec": {"selector": {"matchLabels": labels}, "strategy": {"type": "Recreate"}, "template": template},
            },
        )
        if password:
            self.secret(password)
        self.kubectl("rollout", "status", f"deploy/{name}", "--timeout=60s", timeout=70)

    def secret(self, password: str) -> None:
        """The Secret with Redis's password."""
        self.password = password
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "redis"},
            "stringData": {"key": password},
        }
        self.apply(manifest | {"stringData": {"key": password}})

    def redis(self, *command: str, name: str = "valkey") -> Any:
        """A command to Redis, from inside the cluster; the answer as Python shows it."""
        code = "import redis,sys,json;print(json.dumps(redis.Redis(*sys.argv[1:2],password=sys.argv[2] or None,"
        code += "decode_responses=True).execute_command(*sys.argv[3:])))"
        where = ("exec", "deploy/tools", "--", "/app/bin/python", "-c", code, name, self.password or "", *command)
        return json.loads(self.kubectl(*where))

    def tools(self) -> None:
        """A pod from which Redis can be asked."""
        pod = {
            "containers": [
                _container("tools", IMSERVER, command=["/app/bin/python", "-c", "import time;time.sleep(1e6)"])
            ],
            "terminationGracePeriodSeconds": 0,
        }
        labels = {"app": "tools"}
        template = {"metadata": {"labels": labels}, "spec": pod}
        spec = {"selector": {"matchLabels": labels}, "template": template}
        metadata = {"name": "tools"}
        self.apply(
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec},
        )
        self.kubectl("rollout", "status", "deploy/tools", "--timeout=60s", timeout=70)

    @contextmanager
    def publishing(self) -> Iterator["Publishing"]:
        """What is published while the block runs, as Redis shows it twenty times a second. Needs `tools()`."""
        command = ["kubectl", "-n", self.namespace, "exec", "deploy/tools", "--", "/app/bin/python", "-c", _FOLLOW]
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output)
            seen = Publishing([], [])
            try:
                yield seen
                assert process.poll() is None, f"kubectl exec has ended with {process.returncode}"
            finally:
                process.terminate()
                process.wait(15)
                output.seek(0)
                for line in output:
                    epoch, _, instance = line.strip().partition(" ")
                    if seen.epochs[-1:] != [int(epoch)]:
                        seen.epochs.append(int(epoch))
                    if seen.publishers[-1:] != [instance]:
                        seen.publishers.append(instance)

    def renew_mounts(self) -> None:
        """Have the kubelets look at all pods now, and so renew mounted Secrets, which they else do within a minute."""
        self.kubectl("annotate", "pods", "--all", "--overwrite", f"imcluster.io/e2e-renewed={time.time_ns()}")

    # ImClusters.

    def imcluster(self, name: str = "chat", **spec: Any) -> None:
        """Apply an ImCluster; by default it uses the Valkey of `valkey()`."""
        redis: Json = {"url": "redis://valkey:6379"}
        if self.password:
            redis["passwordFrom"] = {"secretKeyRef": {"name": "redis", "key": "key"}}
        spec = {"redis": redis, "podTemplate": {"resources": {"requests": {"cpu": "10m"}}}} | spec
        manifest = {"apiVersion": "imcluster.io/v1", "kind": "ImCluster", "metadata": {"name": name}, "spec": spec}
        self.apply(manifest)

    def patch(self, spec: Json, name: str = "chat") -> None:
        self.kubectl("patch", "imc", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def status(self, name: str = "chat") -> Json:
        found: Json = get("imc", name, namespace=self.namespace)
        status: Json = found.get("status", {})
        return status | {"generation": found["metadata"]["generation"]}

    def condition(self, kind: str, name: str = "chat") -> Json:
        conditions = self.status(name).get("conditions", ())
        return next((c for c in conditions if c["type"] == kind), {"status": "Unknown", "reason": "", "message": ""})

    def ready(self, name: str = "chat", timeout: float = 120) -> float:
        """Wait until the ImCluster is Ready for its newest generation; how many seconds that took."""
        began = time.monotonic()

        def is_ready() -> bool:
            status = self.status(name)
            whole = status.get("observedGeneration") == status["generation"]
            return whole and any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))

        wait_for(f"{name} to be ready", is_ready, timeout)
        return time.monotonic() - began

    def pods(self, name: str = "chat") -> list[Json]:
        found: list[Json] = get("pods", "-l", f"app.kubernetes.io/instance={name}", namespace=self.namespace)["items"]
        return found

    def connections(self, pod: str) -> int | None:
        """How many connections a pod says that it holds; None when it is not there to be asked."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}:9600/proxy/metrics"
        try:
            lines = self.kubectl("get", "--raw", path).splitlines()
        except AssertionError:
            return None
        return next(int(float(line.split()[-1])) for line in lines if line.startswith("imserver_connections "))

    def restarts(self, name: str = "chat") -> int:
        return sum(c["restartCount"] for p in self.pods(name) for c in p["status"].get("containerStatuses", ()))

    # Clients.

    def traffic(
        self, *, servers: int, rate: int = 50, redis: str = "redis://valkey:6379", tls: bool = False
    ) -> "Traffic":
        """Start three clients a slot and a business service, and wait until all are connected.

        With `tls` the Secrets `ca` and `client` hold the files for Redis.
        """
        code = (HERE / "traffic.py").read_text()
        config = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "traffic"},
            "data": {"traffic.py": code},
        }
        command = ["/app/bin/python", "-u", "/traffic/traffic.py", "--rate", str(rate)]
        env = [{"name": "IM_REDIS_URL", "value": redis}]
        mounts = [{"name": "code", "mountPath": "/traffic"}]
        volumes: list[Json] = [{"name": "code", "configMap": {"name": "traffic"}}]
        if self.password:
            env.append({"name": "IM_REDIS_PASSWORD_FILE", "value": "/redis/key"})
            mounts.append({"name": "redis", "mountPath": "/redis"})
            volumes.append({"name": "redis", "secret": {"secretName": "redis"}})
        if tls:
            files = {"CA": "ca.crt", "CERT": "tls.crt", "KEY": "tls.key"}
            env += [{"name": f"IM_REDIS_{name}_FILE", "value": f"/redis/{file}"} for name, file in files.items()]
            mounts.append({"name": "redis", "mountPath": "/redis"})
            sources = [{"secret": {"name": name}} for name in ("ca", "client")]
            volumes.append({"name": "redis", "projected": {"sources": sources}})
        command += ["--servers", str(servers)]
        pod = {
            "containers": [_container("traffic", IMSERVER, command=command, env=env, volumeMounts=mounts)],
            "volumes": volumes,
            "terminationGracePeriodSeconds": 0,
            "restartPolicy": "Never",
        }
        self.apply(
            config | {"data": {"traffic.py": code}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "traffic"}, "spec": pod},
        )
        self.kubectl("wait", "--for=condition=Ready", "pod/traffic", "--timeout=60s", timeout=70)
        traffic = Traffic(self)
        wait_for("the first messages", lambda: traffic.report().get("sent", 0) > rate, 60)
        return traffic


class Publishing(NamedTuple):
    """The epochs that were in force, and who held the right to publish, both in order and without repetition."""

    epochs: list[int]
    publishers: list[str]


class Traffic:
    """Clients and a business service that run in a pod of their own."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def report(self) -> Json:
        """What they counted so far; empty before the first report."""
        where = ("exec", "traffic", "--", "/app/bin/python", "-c", "print(open('/tmp/report.json').read())")
        done: Json = {}
        try:
            done = json.loads(self._stage.kubectl(*where))
        except AssertionError as error:
            if "FileNotFoundError" not in str(error):
                raise
        return done

    def settle(self, seconds: float = 3) -> Json:
        """Let a few messages pass and stop."""
        time.sleep(seconds)
        return self.stop()

    def again(self) -> None:
        """Every client asks for a URL again and goes on there."""
        self._stage.kubectl("exec", "traffic", "--", "/app/bin/python", "-c", "open('/tmp/again','w')")

    def stop(self) -> Json:
        """Send no more, wait for what is under way, answer the final report, remove the pod."""
        self._stage.kubectl("exec", "traffic", "--", "/app/bin/python", "-c", "open('/tmp/stop','w')")
        report: Json = wait_for("the final report", lambda: (r := self.report()).get("final") and r, 60)
        self._stage.kubectl("delete", "pod", "traffic", "--wait=true", "--grace-period=0", "--force")
        return report


def nothing_lost(report: Json) -> None:
    """Every message that Redis accepted came to everyone it was for, once and in order, and all are connected."""
    assert report["sent"] > 100
    found = {key: report[key] for key in ("lost", "duplicates", "disorder", "gaps")}
    assert found == {"lost": 0, "duplicates": 0, "disorder": 0, "gaps": 0}, report
    assert report["connected"] == report["clients"], report


def helm(*arguments: str, timeout: float = 180) -> str:
    """Run helm."""
    return run("helm", *arguments, timeout=timeout)
