"""Whether a publisher can be reached, found out within seconds."""

import threading
from pathlib import Path
from urllib.parse import urlsplit

import requests

from train.system.errors import UserError

PROBE_SECONDS = 5.0


def require_network(name: str, url: str, cache: Path, files: str) -> None:
    """Fails within seconds where tensorflow-datasets would go on trying for minutes.

    Args:
        name: of the data set.
        url: one of its files.
        cache: where the set is not.
        files: what a person without a network has to come by, for the message.

    Raises:
        UserError: if the file is out of reach.
    """
    failure = _probe(url)
    if failure is not None:
        raise UserError(
            f"{name} is not in {cache} and {urlsplit(url).netloc} cannot be reached "
            f"({failure}): connect to the network, or name a folder with {files} with --data-dir."
        )


def _probe(url: str) -> str | None:
    """Asks for a file without reading it; returns what went wrong, or None.

    It asks as tensorflow-datasets does, through requests, so that proxies and certificates count
    alike; and on a thread, because looking up a name may take longer than any timeout given.
    """
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            with requests.get(url, stream=True, timeout=PROBE_SECONDS) as response:
                outcome.append(None if response.ok else f"it answers {response.status_code}")
        except requests.RequestException as error:
            outcome.append(type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return outcome[0] if outcome else f"no answer in {PROBE_SECONDS:g} seconds"
