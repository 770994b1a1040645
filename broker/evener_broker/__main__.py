"""`python -m evener_broker '<json>'`: how other parts of evener start a broker as their child."""

from __future__ import annotations

import json
import logging
import sys

from evener_broker.server import BrokerConfig, serve


def main(arguments: list[str]) -> int:
    """Run the broker that the JSON object in the only argument describes."""
    config = BrokerConfig(**json.loads(arguments[0] if arguments else "{}"))
    logging.basicConfig(
        level=config.log_level.upper(), format="%(asctime)s broker %(levelname)s %(message)s"
    )
    return serve(config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
