"""Open the report in headless Chromium and check that it shows every installed package."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tenfold_tools._workspace import experiments

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1200,2400",
)


def main(page: Path) -> None:
    """Check `page`; leave a screenshot beside it."""
    picture = page.with_name("screenshot.png").resolve()
    picture.unlink(missing_ok=True)
    address = page.resolve().as_uri()
    document = _chromium("--dump-dom", address)
    _chromium(f"--screenshot={picture}", address)

    shown = set(re.findall(r'<tr data-package="([^"]+)"', document))
    missing = set(experiments("run")) - shown
    if missing or not shown:
        sys.exit(f"{page} shows {sorted(shown)} and not {sorted(missing)}")
    with Image.open(picture) as image:
        colours = image.convert("RGB").getcolors(maxcolors=2**24) or []
        if len(colours) < 10:
            sys.exit(f"{picture} is blank: {len(colours)} colours")
    sys.stdout.write(f"{page} shows {', '.join(sorted(shown))}; screenshot in {picture.name}\n")


def _chromium(*arguments: str) -> str:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        sys.exit("chromium was not found; install the system package chromium")
    with tempfile.TemporaryDirectory() as profile:
        command = [program, *OPTIONS, f"--user-data-dir={profile}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


main(Path(sys.argv[1]))
