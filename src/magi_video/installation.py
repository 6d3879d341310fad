"""How this installation gets optional packages: for messages about one that is missing."""

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlparse

PACKAGE = "magi-video"
"""Its name for pip."""


def install_command(extra: str, bare: str = "") -> str:
    """The shell command that installs a set of optional packages beside this installation.

    Of a clone it is the README's, to be typed in its folder. Else pip gets the address that the package came from, or
    its name where that was an index or a file of this machine: no path is shown.

    Args:
        extra: name of the set in `pyproject.toml`: "games", "serve", …
        bare: names of packages to install after it without what they ask for.
    """
    clone, source = _origin()
    after = f" && pip install --no-deps {bare}" if bare else ""
    if clone is None:
        return f'pip install "{PACKAGE}[{extra}]{source}"{after}'
    pinned = "-c constraints.txt " if (clone / "constraints.txt").is_file() else ""
    where = "" if clone == Path.cwd() else f" (in the folder that {PACKAGE} was cloned into)"
    return f'pip install {pinned}{source}".[{extra}]"{after}{where}'


def hide_address(message: str) -> str:
    """A message without the address in its `install_command`, which may be internal: for a page that others read."""
    clone, source = _origin()
    return message.replace(source, "") if clone is None and source else message


def _origin() -> tuple[Path | None, str]:
    """The clone that the package was installed from, "-e " if as a link to it; else None and " @ ADDRESS" or ""."""
    try:
        record = json.loads(distribution(PACKAGE).read_text("direct_url.json") or "{}")  # PEP 610
        address = str(record.get("url", ""))
        if "dir_info" in record:
            return Path(unquote(urlparse(address).path)), "-e " if record["dir_info"].get("editable") else ""
        if urlparse(address).scheme == "file":
            return None, ""
        if "vcs_info" in record:
            address = f"{record['vcs_info']['vcs']}+{address}@{record['vcs_info']['commit_id']}"
        return None, f" @ {address}" if address else ""
    except PackageNotFoundError:  # run from a clone that is not installed
        clone = Path(__file__).parents[2]
        return (clone, "-e ") if (clone / "pyproject.toml").is_file() else (None, "")
    except (ValueError, KeyError, AttributeError):  # a record that cannot be read
        return None, ""
