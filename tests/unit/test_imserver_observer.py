# Who is dead? The observer against a model that remembers everything it ever saw.
# The rule: silent only if the counter stood still for a lease of steady own renewals on one run of Redis.

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from imserver.observer import Observer, Silent

LEASE = 5.0
NAMES = ["me", "a", "b"]


class Deaths(RuleBasedStateMachine):
    """The model keeps the whole history: own beats with their time, run and what they showed, and failures."""

    def __init__(self) -> None:
        super().__init__()
        self.observer = Observer("me", LEASE)
        self.now = 1000.0
        self.run = "run0"
        self.beats = {name: (f"{name}0", 0) for name in NAMES}
        self.history: list[tuple[float, str | None, dict[str, tuple[str, int]]]] = []

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 1.0, 1.0, 2.5, 2.6, 30.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(name=st.sampled_from(NAMES[1:]), times=st.integers(1, 3))
    def other_beats(self, name, times):
        if name in self.beats:
            boot, beat = self.beats[name]
            self.beats[name] = (boot, beat + times)

    @rule(name=st.sampled_from(NAMES[1:]))
    def other_comes_or_goes_or_boots_anew(self, name):
        if name in self.beats and self.now % 2 < 1:
            del self.beats[name]
        else:
            self.beats[name] = (f"{name}@{self.now}", 0)

    @rule()
    def redis_restarts(self):
        self.run = f"run@{self.now}"

    @rule()
    def own_beat_fails(self):
        self.observer.failed()
        self.history.append((self.now, None, {}))

    @rule()
    def own_beat_succeeds(self):
        found = self.observer.observed(self.now, self.run, dict(self.beats))
        self.history.append((self.now, self.run, dict(self.beats)))
        wanted = [Silent(n, *self.beats[n]) for n in sorted(self.beats) if n != "me" and self.is_silent(n)]
        assert found == wanted

    def is_silent(self, name: str) -> bool:
        """Walk back through the history as long as nothing in it says that the other may live."""
        later = self.now
        for at, run, beats in reversed(self.history):
            if run != self.run or later - at > LEASE / 2 or beats.get(name) != self.beats[name]:
                return False
            if self.now - at >= LEASE:
                return True
            later = at
        return False

    @invariant()
    def it_asks_to_be_called_before_anybody_can_be_silent(self):
        if self.history and set(self.history[-1][2]) - {"me"}:
            assert self.observer.next_deadline() <= self.history[-1][0] + LEASE


Deaths.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestDeaths = Deaths.TestCase


def observe(observer: Observer, *times: float, run: str = "r", beat: int = 7) -> list[Silent]:
    found: list[Silent] = []
    for now in times:
        found = observer.observed(now, run, {"me": ("m", int(now)), "a": ("a0", beat)})
    return found


def test_a_beat_that_stands_still_for_a_lease_is_a_death():
    assert observe(Observer("me", 5.0), 0, 1, 2, 3, 4, 4.9) == []
    assert observe(Observer("me", 5.0), 0, 1, 2, 3, 4, 5) == [Silent("a", "a0", 7)]


def test_an_outage_of_redis_condemns_nobody():
    observer = Observer("me", 5.0)
    observe(observer, 0, 1, 2, 3, 4)
    observer.failed()
    assert observe(observer, 5, 6, 7, 8, 9) == []
    assert observe(observer, 10) == [Silent("a", "a0", 7)]


def test_a_frozen_observer_condemns_nobody():
    observer = Observer("me", 5.0)
    observe(observer, 0, 1, 2)
    assert observe(observer, 60, 61, 62, 63, 64) == []


def test_a_new_run_of_redis_starts_the_count_anew():
    observer = Observer("me", 5.0)
    observe(observer, 0, 1, 2, 3, 4)
    assert observe(observer, 5, 6, 7, run="other") == []
    assert observe(observer, 8, 9, 10, run="other") == [Silent("a", "a0", 7)]


def test_alone_there_is_no_deadline():
    observer = Observer("me", 5.0)
    observer.observed(0, "r", {"me": ("m", 1)})
    assert observer.next_deadline() == float("inf")
