"""The results of several tasks at once, however they are handed over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

import evener


@pytest.fixture
def client() -> Iterator[evener.Client]:
    with evener.LocalCluster(workers=0) as cluster, cluster.client() as client:
        yield client


def test_as_arguments_and_as_any_iterable(client: evener.Client) -> None:
    futures = [client.submit(pow, 2, n) for n in range(3)]
    assert evener.gather(*futures) == [1, 2, 4]
    assert evener.gather(futures) == [1, 2, 4]
    assert evener.gather(iter(futures), timeout=5) == [1, 2, 4]
    assert client.gather(futures) == client.gather(*futures) == [1, 2, 4]
    assert evener.gather() == evener.gather([]) == []
    assert evener.gather(futures[2]) == [4]


@pytest.mark.parametrize("wrong", [3, "demo.add", [3]])
def test_what_is_no_future_is_named(wrong: object, client: evener.Client) -> None:
    with pytest.raises(evener.UsageError, match=r"as gather\(a, b\) or gather\(\[a, b\]\)"):
        evener.gather(cast(Any, wrong))
    future = client.submit(abs, -1)
    with pytest.raises(evener.UsageError, match="number 2 is a int"):
        evener.gather(future, cast(Any, 3))
