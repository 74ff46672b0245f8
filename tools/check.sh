#!/usr/bin/env bash
# Everything that is checked without running a test: lint, format, types, and the documentation site (into site/).
# The tools are those of the active environment: pip install --editable ".[dev]"
set -uo pipefail
cd "$(dirname "$0")/.."

failed=()
check() {
    echo "tools/check.sh: $*"
    "$@" || failed+=("$*")
}

check python -m ruff check .
check python -m ruff format --check .
check python -m pyright --pythonpath "$(python -c 'import sys; print(sys.executable)')"
# NO_MKDOCS_2_WARNING: the theme announces its end of life at every start otherwise.
check env NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict --quiet

if [ "${#failed[@]}" != 0 ]; then
    printf 'tools/check.sh: failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
