"""Keeps one ImCluster: observes, decides, applies, again and again. One task a cluster, so nothing runs twice at once.
Everything that happens is derived from what is seen now; a restart in between changes nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from time import monotonic

from imhelper.core.topology import ACTIVE, Topology
from imhelper.errors import RedisUnavailableError, SettingError, TopologyError

from .access import MissingReference, digests_of, read_access
from .api import Api
from .applying import Applier
from .children import whose
from .ending import Ending
from .fleet import next_topology
from .metrics import Metrics
from .model import Cluster, Defaults, Manifest, Problem, RedisView, Ref, Seen
from .names import CAUSE_OTHER, CAUSE_SPEC, DRAINING_SINCE, SERVING, Key, selector
from .observe import read_bare, read_cluster, read_seen
from .patience import Patience
from .redis import Access, Redis, Taken
from .rendering import Rendering
from .rollout import Plan, plan
from .routes import reach
from .status import build_status
from .telling import EXPECTED, Teller, describe
from .turn import Turn
from .workload import references_of

__all__ = ["Keeper"]

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
# Several changes at once are one pass.
SETTLE_SECONDS = 0.1
BACKOFF_MOST = 30.0
REDIS_BACKOFF_MOST = 10.0
# So many passes that fail in a row are told in the status: the API server may be away for a moment.
FAILURES = 3
# How long an earlier process of this operator may hold the prefix; its right runs out well before.
PATIENCE_SECONDS = 30.0


class Keeper:
    """Looks after one ImCluster until it is gone. `run` returns then; errors are logged, counted and tried again."""

    def __init__(
        self, api: Api, key: Key, *, instance: str, defaults: Defaults, resync: float, metrics: Metrics, turn: Turn
    ) -> None:
        self._api, self._key = api, key
        self._instance, self._resync = instance, resync
        self._rendering = Rendering(defaults)
        self._metrics, self._turn = metrics, turn
        self._dirty = asyncio.Event()
        self._dirty.set()
        self._looked = float("-inf")
        # When to look again without a reason, since something failed; and how long the last pause was.
        self._again, self._pause = float("inf"), 0.0
        self._cluster: Cluster | None = None
        self._seen: Seen | None = None
        self._patience = Patience()
        self._applier = Applier(api)
        self._digests: dict[Ref, str] = {}
        self._references = ""
        self._access: Access | None = None
        self._redis: Redis | None = None
        self._redis_wait, self._redis_next = 0.0, float("-inf")
        self._redis_problem: Problem | None = None
        self._problem: Problem | None = None
        self._held = False
        self._denied = 0.0
        self._admitted: dict[str, str] | None = None
        self._released: dict[str, float] = {}
        self._reach = 0
        # Few clusters know the kind: it is asked for until none is left that an earlier spec wanted.
        self._may_have_routes = True
        self._teller = Teller(api, metrics)
        self._ending = Ending(api)
        turn.expect(key)
        self.passed = monotonic()
        """When the last pass ended, well or not, on the monotonic clock."""

    def mark(self) -> None:
        """Something about this cluster has changed: look at once."""
        self._dirty.set()

    async def run(self) -> None:
        """Keep the cluster until it is gone, or until cancelled."""
        backoff, failures = 0.0, 0
        try:
            while True:
                await self._wait(backoff)
                began = monotonic()
                try:
                    gone = await self._pass()
                except Exception as error:
                    # Whatever it was, the other clusters go on, and this one is tried again.
                    backoff = min(BACKOFF_MOST, backoff * 2 or TICK_SECONDS)
                    self._dirty.set()
                    failures += 1
                    self._metrics.reconcile.labels("error").inc()
                    trace = not isinstance(error, EXPECTED)
                    log.warning("%s: tried again in %.0f s: %s", self._key, backoff, describe(error), exc_info=trace)
                    if failures >= FAILURES:
                        self._turn.heard(self._key)
                        await self._teller.failed(self._key, error)
                else:
                    backoff, failures = 0.0, 0
                    self._turn.heard(self._key)
                    self._metrics.reconcile.labels("ok").inc()
                    if gone:
                        return
                finally:
                    self.passed = monotonic()
                    self._metrics.seconds.observe(self.passed - began)
        finally:
            self._turn.heard(self._key)
            self._turn.give_back(self._key)
            self._metrics.forget(self._key)
            await self._close()

    async def _wait(self, backoff: float) -> None:
        """Until something changes or a second has passed; after an error, until its pause is over."""
        if backoff:
            await asyncio.sleep(backoff)
            return
        try:
            async with asyncio.timeout(TICK_SECONDS):
                await self._dirty.wait()
        except TimeoutError:
            return
        await asyncio.sleep(SETTLE_SECONDS)

    async def _close(self) -> None:
        if self._redis is None:
            return
        redis, self._redis = self._redis, None
        try:
            if self._held:
                async with asyncio.timeout(2):
                    await redis.release()
        except (TimeoutError, RedisUnavailableError) as error:
            log.info("%s: the right to publish could not be given back and runs out: %s", self._key, error)
        finally:
            await redis.close()

    # One pass.

    async def _pass(self) -> bool:
        """Look, decide, act. True when the ImCluster is gone."""
        now = monotonic()
        full = self._dirty.is_set() or now - self._looked >= self._resync or now >= self._again
        self._dirty.clear()
        problem = self._problem
        if full:
            manifest = await self._api.cluster(self._key)
            if manifest is None or self._replaced(manifest):
                return True
            problem = self._problem = await self._look(manifest)
        cluster, seen = self._cluster, self._seen
        if cluster is None or seen is None:
            return False
        seen = self._patience.note(cluster, replace(seen, at=time.time()))
        view, redis_problem = await self._look_at_redis(cluster, seen)
        problem = problem or redis_problem
        if cluster.deleting_at is not None:
            foreign = redis_problem is not None and redis_problem.reason == "PrefixInUse"
            return await self._ending.step(cluster, seen, view, self._redis if self._held else None, foreign=foreign)
        if full and not cluster.has_finalizer:
            await self._api.set_finalizer(cluster.key, cluster.uid, True)
            cluster = self._cluster = replace(cluster, has_finalizer=True)
        template = self._rendering.template(cluster, self._digests, self._references)
        steps = self._plan(cluster, seen, view, template)
        failed = None
        # While another process holds the prefix for this very ImCluster, what it decides must not be undone here.
        if view is None or self._held:
            failed = await self._apply(cluster, seen, template, steps)
            await self._drain(seen, steps)
        if view is not None and self._held and self._redis is not None:
            view = await self._publish(cluster, seen, view, steps, self._redis)
        self._schedule(failed is not None or problem is not None)
        await self._tell(cluster, seen, view, steps, problem or failed)
        return False

    def _replaced(self, manifest: Manifest) -> bool:
        """Whether another ImCluster of the same name has come; it gets a keeper of its own."""
        return self._cluster is not None and manifest["metadata"]["uid"] != self._cluster.uid

    def _schedule(self, failed: bool) -> None:
        """After a failure look again soon, but ever less often; what was repaired elsewhere may raise no event."""
        if not failed:
            self._again, self._pause = float("inf"), 0.0
        elif monotonic() >= self._again or self._again == float("inf"):
            self._pause = min(BACKOFF_MOST, self._pause * 2 or TICK_SECONDS)
            self._again = monotonic() + self._pause

    async def _look(self, manifest: Manifest) -> Problem | None:
        key, problem = self._key, None
        try:
            cluster = read_cluster(manifest)
        except ValueError as error:
            await self._refuse(manifest, str(error))
            return None
        wants_routes = cluster.spec.exposure.gateway is not None
        live = await self._api.children(key, routes=wants_routes or self._may_have_routes)
        self._may_have_routes = wants_routes or any(kind == "HTTPRoute" for kind, _ in live)
        work = ("StatefulSet", key.name)
        if work not in live and (found := await self._api.child("StatefulSet", key, key.name)) is not None:
            # Its size must not be forgotten because somebody took its labels away.
            live[work] = found
        live = {at: manifest for at, manifest in live.items() if not whose(cluster, manifest)}
        self._applier.observed(live)
        pods = await self._api.pods(key, selector(key.name))
        self._cluster, self._seen = cluster, read_seen(key, time.time(), pods, live)
        self._looked = monotonic()
        self._digests = await digests_of(self._api, cluster)
        self._references = references_of(live.get(("StatefulSet", key.name)))
        try:
            self._use(await read_access(self._api, cluster), cluster)
        except MissingReference as error:
            problem = Problem("SecretMissing", str(error))
        except SettingError as error:
            problem = Problem("BadRedisURL", str(error))
        return problem

    async def _refuse(self, manifest: Manifest, why: str) -> None:
        """A spec that this release can't read: say so, touch nothing; if the ImCluster is to go, let it go."""
        self._cluster = None
        self._looked = monotonic()
        bare = read_bare(manifest)
        if bare.deleting_at is not None:
            await self._ending.let_go(bare, f"the spec can't be used: {why}")
            return
        log.error("%s: the spec can't be used: %s", self._key, why)
        # Its servers go on: who scales by the status must not see that there are none.
        pods = await self._api.pods(self._key, selector(self._key.name))
        seen = read_seen(self._key, time.time(), pods, {})
        await self._teller.write(bare, build_status(bare, seen, None, None, Problem("InvalidSpec", why)))

    # Redis.

    def _use(self, access: Access, cluster: Cluster) -> None:
        if access == self._access:
            return
        if self._redis is None or not self._redis.renew_access(access):
            old, self._redis = self._redis, Redis(access, cluster.uid, self._instance)
            self._ending.leave(old)
            self._held = False
        self._access = access
        self._redis_next = float("-inf")

    async def _look_at_redis(self, cluster: Cluster, seen: Seen) -> tuple[RedisView | None, Problem | None]:
        if self._redis is None:
            return None, None
        if monotonic() < self._redis_next:
            return None, self._redis_problem
        expected = [p.name for p in seen.pods if self._admitted and p.name in self._admitted]
        try:
            # One that is to go takes no prefix any more: its end would remove what belongs to others.
            self._held = await self._redis.hold(adopt=cluster.adopt, only_keep=cluster.deleting_at is not None)
            view = await self._redis.view(expected, cluster.spec.server.lease_seconds)
        except Taken as error:
            self._held = False
            self._redis_next = monotonic() + REDIS_BACKOFF_MOST
            self._redis_problem = Problem("PrefixInUse", str(error))
            return None, self._redis_problem
        except TopologyError as error:
            # As if Redis were away: nothing is drained, and a deletion leaves the keys to who can read them.
            self._redis_next = monotonic() + REDIS_BACKOFF_MOST
            self._redis_problem = Problem("TopologyUnreadable", str(error))
            return None, self._redis_problem
        except RedisUnavailableError as error:
            self._redis_wait = min(REDIS_BACKOFF_MOST, self._redis_wait * 2 or TICK_SECONDS)
            self._redis_next = monotonic() + self._redis_wait
            self._redis_problem = Problem("RedisUnavailable", f"Redis unreachable: {error}")
            # The cause may be a rotated password: read the Secrets again before the next try.
            self._dirty.set()
            return None, self._redis_problem
        self._redis_wait, self._redis_problem = 0.0, None
        self._denied = 0.0 if self._held else self._denied or monotonic()
        if not self._held and monotonic() - self._denied > PATIENCE_SECONDS:
            message = "another operator looks after this ImCluster: the namespaces of two operators must not overlap"
            self._redis_problem = Problem("AnotherOperator", message)
        if self._admitted is None:
            # What the table knew before this process started was admitted by an earlier one.
            known = {s.name for s in view.topology.servers} if view.topology else set()
            self._admitted = {p.name: p.uid for p in seen.pods if p.name in known}
        return view, self._redis_problem

    async def _publish(self, cluster: Cluster, seen: Seen, view: RedisView, steps: Plan, redis: Redis) -> RedisView:
        admitted = self._admitted or {}
        if view.topology is None and redis.remembered is not None:
            # Redis lost it. What changed meanwhile is found by comparing with it, as ever.
            new: Topology | None = redis.remembered
        else:
            new = next_topology(
                cluster, seen, view, steps.leaving, admitted=admitted, blocks=steps.blocks, groups=redis.groups
            )
        if new is not None:
            published = await redis.publish(new, view)
            if published is None:
                log.info("%s: somebody else has published meanwhile", self._key)
                return view
            states = ", ".join(f"{s.name} ({s.state})" for s in published.servers) or "no server"
            log.info("%s: epoch %d: %s", self._key, published.epoch, states)
            view = replace(view, topology=published)
        if view.topology is not None:
            active = {s.name for s in view.topology.servers if s.state == ACTIVE}
            self._admitted = {p.name: p.uid for p in seen.pods if p.name in active or admitted.get(p.name) == p.uid}
        return view

    # Kubernetes.

    def _plan(self, cluster: Cluster, seen: Seen, view: RedisView | None, template: str) -> Plan:
        work, turn = seen.workload, True
        # A partition below the replicas: a roll-out is under way, also while the last old pod has just gone.
        under_way = work is not None and work.partition < work.replicas
        changes = work is not None and (
            under_way or work.template != template or any(p.revision != work.update_revision for p in seen.pods)
        )
        if changes and work is not None and self._cause(cluster, seen, template) == CAUSE_OTHER:
            # One whose Redis is away can't be rolled and must not keep others waiting. Under way, it keeps the turn.
            may = view is not None or under_way or self._turn.holds(cluster.key)
            turn = may and self._turn.take(cluster.key, under_way=under_way)
        elif not changes:
            self._turn.give_back(cluster.key)
        hold = cluster.spec.rollout.paused or not turn
        if cluster.spec.rollout.paused:
            self._turn.give_back(cluster.key)
        steps = plan(cluster, seen, view, template, hold=hold, released=self._released)
        free = {
            p.uid
            for p in seen.pods
            if work is not None and p.revision != work.update_revision and p.ordinal >= steps.partition
        }
        self._released = {uid: self._released.get(uid, seen.at) for uid in free}
        return steps

    def _cause(self, cluster: Cluster, seen: Seen, template: str) -> str:
        work = seen.workload
        if work is None or work.template == template:
            return work.cause if work is not None and work.cause else CAUSE_SPEC
        return CAUSE_SPEC if cluster.generation > work.generation else CAUSE_OTHER

    async def _apply(self, cluster: Cluster, seen: Seen, template: str, steps: Plan) -> Problem | None:
        cause = self._cause(cluster, seen, template)
        self._reach = reach(cluster, seen, self._reach)
        wanted = self._rendering.children(cluster, cause, steps.replicas, steps.partition, self._reach)
        if seen.workload is None and not self._held:
            # Servers on a prefix that belongs to others would fence theirs.
            wanted = [m for m in wanted if m["kind"] != "StatefulSet"]
        changed, problem = await self._applier.apply(cluster, wanted)
        if changed:
            self._dirty.set()
        await self._teller.scale(cluster)
        return problem

    async def _drain(self, seen: Seen, steps: Plan) -> None:
        """Mark the pods that leave, clear those that stay, replace what its controller does not."""
        for pod in seen.pods:
            since: str | None
            if pod.deleting_since is not None:
                continue
            if pod.name in steps.leaving and pod.draining_since is None:
                serving, since = "false", f"{seen.at:.3f}"
            elif pod.name not in steps.leaving and (pod.draining_since is not None or not pod.serving):
                serving, since = "true", None
            else:
                continue
            marks = {"labels": {SERVING: serving}, "annotations": {DRAINING_SINCE: since}}
            await self._api.mark_pod(self._key, pod.name, pod.uid, marks)
            self._dirty.set()
        for pod in seen.pods:
            if pod.name in steps.delete:
                log.info("%s: %s is drained and still not replaced: it is deleted", self._key, pod.name)
                await self._api.delete_pod(self._key, pod.name, pod.uid)
                self._dirty.set()

    async def _tell(
        self, cluster: Cluster, seen: Seen, view: RedisView | None, steps: Plan, problem: Problem | None
    ) -> None:
        status = build_status(cluster, seen, view, steps, problem)
        if await self._teller.write(cluster, status):
            self._cluster = replace(cluster, status=status)
