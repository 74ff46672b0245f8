#!/usr/bin/env bash
# Installs everything the tests need and runs them: system libraries (as root on Debian), a virtual environment outside
# the repository that is kept for the next run with the same dependencies, linter, tests.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'; then
    echo "tools/test.sh: python3 is $(python3 --version); nerfstudio 1.1.5 needs Python 3.11 or 3.12." >&2
    exit 1
fi

# ffmpeg writes ns-render's videos; the libraries are open3d's, for ns-export; Chromium opens the viewer.
system_packages=(ffmpeg libusb-1.0-0 libgl1 libgomp1 libegl1 libx11-6 chromium chromium-driver)
if command -v dpkg >/dev/null && ! dpkg -s "${system_packages[@]}" >/dev/null 2>&1; then
    if [ "$(id -u)" != 0 ]; then
        echo "tools/test.sh: install ${system_packages[*]} first (apt-get install)." >&2
        exit 1
    fi
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${system_packages[@]}" >/dev/null
fi

key=$( (python3 --version; cat pyproject.toml) | sha256sum | cut -c1-16)
environment="${XDG_CACHE_HOME:-$HOME/.cache}/dietnerf_ns/venv-$key"
if [ ! -e "$environment/complete" ]; then
    rm -rf "$environment"
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet ".[test]"
    touch "$environment/complete"
fi
"$environment/bin/pip" install --quiet --no-deps --editable .

"$environment/bin/ruff" check .
"$environment/bin/ruff" format --check .
exec "$environment/bin/python" -m pytest -n 2 --dist loadfile "$@"
