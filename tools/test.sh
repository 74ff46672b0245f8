#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<'END'
Usage: bash tools/test.sh [--fast] [PYTEST ARGUMENT ...]

Checks the code and runs the tests. The first run installs the package and the tools for development into a virtual
environment in ~/.cache/dietnerf_ns ($XDG_CACHE_HOME), about 10 GB, which is kept until the dependencies change: then
a new one takes its place.

  (no option)  Lint, format, types and the documentation site (tools/check.sh), then all tests. On Debian and Ubuntu the
               missing system packages (ffmpeg, the libraries of open3d, Chromium) are installed, which needs root;
               without root the script names them and stops. Ubuntu has no package of Chromium: without it the test
               in a browser is skipped.
  --fast       Lint and format, then only the tests that are neither slow (a real training, a nerfstudio command as a
               program of its own) nor need a browser or a CUDA GPU. No system packages, no root and, once installed,
               no network.
  --help       This text.

All other arguments go to pytest:

  bash tools/test.sh --fast tests/semantic     one folder
  bash tools/test.sh -m slow -k resuming       one slow test
  bash tools/test.sh -m "not browser"          all but the test in Chromium
END
}

fail() {
    echo "tools/test.sh: $*" >&2
    exit 1
}

fast=
pytest_arguments=()
for argument in "$@"; do
    case "$argument" in
        --fast) fast=yes ;;
        --help | -h)
            usage
            exit
            ;;
        *) pytest_arguments+=("$argument") ;;
    esac
done

if ! python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'; then
    fail "python3 is $(python3 --version); nerfstudio 1.1.5 needs Python 3.11 or 3.12."
fi

are_installed() {
    dpkg -s "$@" >/dev/null 2>&1
}

install_system_packages() {
    # ffmpeg writes ns-render's videos; the libraries are open3d's, for ns-export; Chromium opens the viewer.
    local packages=(ffmpeg libusb-1.0-0 libgl1 libgomp1 libegl1 libx11-6) chromium=(chromium chromium-driver)
    if are_installed "${packages[@]}" "${chromium[@]}"; then
        return
    fi
    [ "$(id -u)" != 0 ] || apt-get update -qq || fail "apt-get update failed, see above."
    if [ "$(LC_ALL=C apt-cache policy "${chromium[@]}" | grep -c 'Candidate: [^(]')" = 2 ]; then
        packages+=("${chromium[@]}")
    else
        echo "apt-get has no package of Chromium here: without it the test in a browser is skipped." >&2
    fi
    if are_installed "${packages[@]}"; then
        return
    fi
    if [ "$(id -u)" != 0 ]; then
        fail "install ${packages[*]} first (apt-get install), or run the tests that do without: --fast"
    fi
    apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null ||
        fail "apt-get install ${packages[*]} failed, see above."
}

if [ -z "$fast" ] && command -v dpkg >/dev/null; then
    install_system_packages
fi

# The environment depends on Python and on the part of pyproject.toml before the settings of tools.
key=$( (python3 --version; sed '/^\[tool\./,$d' pyproject.toml) | sha256sum | cut -c1-16)
environment="${XDG_CACHE_HOME:-$HOME/.cache}/dietnerf_ns/venv-$key"
installed="$environment/checkout" # holds the path and the version that were installed last
checkout="$PWD $(grep '^__version__' dietnerf_ns/__init__.py)"
if [ ! -e "$installed" ]; then
    echo "Installing into $environment (several GB, several minutes)." >&2
    rm -rf "$(dirname "$environment")"/venv-*
    python3 -m venv "$environment" || fail "python3 -m venv failed, see above (Debian: apt-get install python3-venv)."
    "$environment/bin/pip" install --quiet --editable ".[dev]" ||
        fail "pip could not install the package and what its tests need, see above. Solve that and run this again."
elif [ "$(cat "$installed")" != "$checkout" ]; then
    "$environment/bin/pip" install --quiet --no-deps --editable . || fail "pip install --editable . failed, see above."
fi
echo "$checkout" >"$installed"

if [ -n "$fast" ]; then
    "$environment/bin/ruff" check .
    "$environment/bin/ruff" format --check .
    pytest_arguments=(-m "not slow and not browser and not cuda" ${pytest_arguments[@]+"${pytest_arguments[@]}"})
else
    PATH="$environment/bin:$PATH" bash tools/check.sh
fi
exec "$environment/bin/python" -m pytest -n 2 -rs ${pytest_arguments[@]+"${pytest_arguments[@]}"}
