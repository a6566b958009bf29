# What the operator makes of the values that the spec refers to: digests that follow the content and nothing else.
# The API is in memory.

from typing import Any

from imoperator.access import digests_of
from imoperator.model import Cluster, Ref
from imoperator.names import Key
from imoperator.spec import parse_spec

SECRET = {"name": "s", "key": "k"}
REF = Ref("Secret", "s", "k")


class FakeApi:
    """Has one value, or none."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content

    async def value(self, _: str, __: Ref) -> bytes | None:
        return self.content


async def digests(content: bytes | None, uid: str = "uid") -> dict[Ref, str]:
    api: Any = FakeApi(content)
    spec = parse_spec({"redis": {"urlFrom": {"secretKeyRef": SECRET}}})
    return await digests_of(api, Cluster(Key("ns", "chat"), uid, 1, spec))


async def test_a_digest_follows_the_content_and_says_nothing_about_other_imclusters():
    found = await digests(b"redis://:hush@r")
    assert found.keys() == {REF} and "hush" not in found[REF]
    assert await digests(b"redis://:hush@r") == found, "also of a Secret that was made anew"
    assert await digests(b"redis://:other@r") != found
    assert await digests(b"redis://:hush@r", "another") != found
    assert await digests(None) == {}
