"""`python -m evener.cli.child '<json>'`: a part of `evener up`, which logs as the command says.

Rules of this file: takes `part` and `log_format` from the object; the rest is the part's own.
"""

from __future__ import annotations

import json
import sys

from evener.cli import logs


def main(argument: str) -> int:
    """Run the broker or the agent that the JSON object describes. Returns its exit code."""
    config = json.loads(argument)
    part, form = config.pop("part"), config.pop("log_format")
    if part == "broker":
        from evener_broker.server import BrokerConfig
        from evener_broker.server import serve as serve_broker

        logs.set_up("broker", config["log_level"], form)
        return serve_broker(BrokerConfig(**config))
    from evener_wire.errors import UsageError
    from evener_worker.config import config_from_json
    from evener_worker.server import serve

    try:
        return serve(config_from_json(json.dumps(config)), logs.line_maker("agent", form))
    except UsageError as error:
        sys.stderr.write(f"evener up: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
