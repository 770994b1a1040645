"""All targets by name."""

from __future__ import annotations

from typing import Final

from tests.fuzz import core_target, decoder_target, peer_targets
from tests.fuzz.guided import Target

TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for target in (
        decoder_target.TARGET,
        core_target.TARGET,
        peer_targets.AGENT,
        peer_targets.CLIENT,
    )
}
