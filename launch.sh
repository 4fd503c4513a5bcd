#!/usr/bin/env bash
# LoRA Atelier: all a user needs.
#   ./launch.sh [--host H --port P --workspace DIR --no-browser --share --auth-file F]   the page
#   ./launch.sh trainer CMD ...                                                          the command line
#   ./launch.sh test [pytest arguments]                                                  lint, types and tests
#   ./launch.sh audit                                                                    known weaknesses of what is installed
# The first call makes .venv, or the folder that LORA_ATELIER_VENV names, and installs into it; later calls start at once, offline too.
set -euo pipefail
unset PYTHONDONTWRITEBYTECODE  # where containers set it, each start compiles torch anew: 15 s and more
cd "$(dirname "${BASH_SOURCE[0]}")"

VENV=${LORA_ATELIER_VENV:-.venv}  # another folder where several copies of the program share it
MADE_HERE=made-by-lora-atelier
AUDITOR=pip-audit==2.10.1
LOG="${TMPDIR:-/tmp}/lora-atelier-install-$$.log"
NEEDED_KIB=$((3 * 1024 * 1024))

say() { printf '%s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

main() {
    local mode=app
    case "${1:-}" in
        test | trainer | audit) mode=$1; shift ;;
    esac
    install_if_missing "$mode"
    case $mode in
        app) exec "$VENV/bin/python" app.py "$@" ;;
        trainer) exec "$VENV/bin/python" -m trainer "$@" ;;
        test) run_tests "$@" ;;
        audit) audit ;;
    esac
}

# ---- installing ---------------------------------------------------------------------------------------------------

install_if_missing() {
    local files=(requirements.txt)
    if has_nvidia; then files+=(requirements-gpu.txt); fi
    if [ "$1" = test ]; then files+=(requirements-dev.txt); fi
    local wanted file
    wanted=$(for file in "${files[@]}"; do cksum "$file"; done)
    if [ -x "$VENV/bin/python" ] && is_installed "$wanted"; then return; fi
    install_packages "$wanted" "${files[@]}"
}

# Whether every wanted line stands in the marker; `test` installs more than the others, so that they may share it.
is_installed() {
    [ -f "$VENV/installed" ] || return 1
    local line
    while IFS= read -r line; do
        grep -qxF "$line" "$VENV/installed" || return 1
    done <<<"$1"
}

install_packages() {
    local wanted=$1 python fresh=no
    shift
    python=$(find_python) || fail "Python 3.10 or newer is needed and was not found: install it from python.org or your system's packages."
    local free
    free=$(df -Pk . | awk 'NR == 2 { print $4 }')
    if [ "$free" -lt "$NEEDED_KIB" ]; then
        fail "Installing needs about 3 GB of disk and $((free / 1024)) MB are free here: make room, then run this again."
    fi
    if [ ! -f "$VENV/installed" ]; then  # nothing, or what an interrupted installation left
        if [ "$VENV" != .venv ] && [ -e "$VENV" ] && [ ! -e "$VENV/$MADE_HERE" ]; then
            fail "LORA_ATELIER_VENV: $VENV was not made by LoRA Atelier: name a folder that is not there yet."
        fi
        fresh=yes
        rm -rf "$VENV"
        trap 'abandon; rm -rf "$VENV"; exit 130' INT TERM HUP
        if ! run_logged "$python" -m venv "$VENV"; then
            rm -rf "$VENV"
            fail "Python's venv module is missing or broken: on Debian and Ubuntu run 'sudo apt install python3-venv' (details: $LOG)."
        fi
        touch "$VENV/$MADE_HERE"
    fi
    say "Installing (once; some minutes and about 2 GB, more with an NVIDIA GPU) ..."
    local arguments=() file
    for file in "$@"; do
        arguments+=(-r "$file")
        # One core would compile everything; the tests compile what they use on all of them. A user's first start waits for none.
        if [ "$file" = requirements-dev.txt ]; then arguments+=(--no-compile); fi
    done
    local index
    index=$(index_of_own_torch)
    if [ -n "$index" ]; then arguments+=(--extra-index-url "$index"); fi
    if ! run_logged "$VENV/bin/python" -m pip install --disable-pip-version-check --progress-bar off "${arguments[@]}"; then
        if [ $fresh = yes ]; then rm -rf "$VENV"; fi
        fail "$(why_pip_failed) (details: $LOG)."
    fi
    mark_installed "$wanted" "$@"
    trap - INT TERM HUP
    rm -f "$LOG"
}

# A PyTorch for AMD's or Intel's GPUs that the user has put into .venv (docs/devices.md) counts as the pinned version for pip;
# where a newer one is pinned, it comes from where the user's came from.
index_of_own_torch() {
    local found build
    for found in "$VENV"/lib/python*/site-packages/torch-*+*.dist-info; do
        build=${found##*+}
        build=${build%.dist-info}
        case $build in
            rocm* | xpu) printf 'https://download.pytorch.org/whl/%s' "$build" ;;
        esac
    done
}

# Bash heeds a signal only when the command in front of it ends, and a command that is just starting may miss its own:
# so the work goes on behind, where `wait` can be interrupted, and `abandon` ends it.
run_logged() {
    "$@" >"$LOG" 2>&1 &
    wait $!
}

abandon() {
    local running
    running=$(jobs -p)
    if [ -n "$running" ]; then
        kill $running 2>/dev/null || true
        wait $running 2>/dev/null || true
    fi
}

# Replace the marker's lines of these files, keep those of the others (`test` after the app, and the other way round).
mark_installed() {
    local wanted=$1 file
    shift
    touch "$VENV/installed"
    for file in "$@"; do
        sed -i.old "/ $file\$/d" "$VENV/installed"
    done
    printf '%s\n' "$wanted" >>"$VENV/installed"
    rm -f "$VENV/installed.old"
}

why_pip_failed() {
    if grep -qi 'no space left' "$LOG"; then
        printf 'The disk became full while installing: make room, then run this again'
    elif grep -qiE 'connection|resolve|timed out|unreachable|could not find a version' "$LOG"; then
        printf 'The package registry could not be reached, or lacks a package for this Python: connect to the network for the first start'
    else
        printf 'Installing failed'
    fi
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.10 python; do
        if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

has_nvidia() { [ -e /proc/driver/nvidia/version ] || command -v nvidia-smi >/dev/null; }

# ---- testing ------------------------------------------------------------------------------------------------------

run_tests() {
    ensure_chromium
    ensure_ssh_server
    if [ $# -gt 0 ]; then exec "$VENV/bin/python" -m pytest "$@"; fi
    "$VENV/bin/ruff" check .
    "$VENV/bin/ruff" format --check .
    local status=0 types
    "$VENV/bin/mypy" &
    types=$!
    # What waits for pages and trainings comes first, the many short tests last: so no worker ends long before the others.
    "$VENV/bin/python" -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder \
        tests/browser tests/security tests/recipe tests/fuzz tests/bench tests/unit || status=$?
    wait "$types" || status=$?
    if command -v timeout >/dev/null; then timeout 120 ./launch.sh audit >&2 || true; fi  # a report that fails nothing
    exit $status
}

# The browser tests drive Debian's Chromium; elsewhere any chromium or chrome on the PATH will do.
ensure_chromium() {
    local name
    for name in chromium chromium-browser google-chrome; do
        if command -v "$name" >/dev/null; then return; fi
    done
    if command -v apt-get >/dev/null; then
        say "Installing Chromium for the browser tests ..."
        if as_root apt-get update -qq >"$LOG" 2>&1 && as_root apt-get install -y -qq chromium >>"$LOG" 2>&1; then
            rm -f "$LOG"
            return
        fi
    fi
    fail "The browser tests need Chromium, and it could not be installed: install 'chromium' with your system's packages."
}

# Tests of training on another machine start an SSH server of their own on loopback; without one they are skipped. The
# system's own server, where it comes along, stays off.
ensure_ssh_server() {
    if [ -x /usr/sbin/sshd ] || command -v sshd >/dev/null; then
        if command -v rsync >/dev/null; then return; fi
    elif ! command -v apt-get >/dev/null; then
        return
    fi
    say "Installing rsync and an SSH server for the tests ..."
    local had_server=no
    if [ -x /usr/sbin/sshd ]; then had_server=yes; fi
    as_root apt-get update -qq >"$LOG" 2>&1 || true
    as_root apt-get install -y -qq openssh-client openssh-server rsync >>"$LOG" 2>&1 || true
    if [ $had_server = no ]; then as_root systemctl disable --now ssh >>"$LOG" 2>&1 || true; fi
    rm -f "$LOG"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then env DEBIAN_FRONTEND=noninteractive "$@"; else sudo -n env DEBIAN_FRONTEND=noninteractive "$@"; fi
}

# ---- auditing -----------------------------------------------------------------------------------------------------

# A report, not a judgement: it ends well whatever is found, and says so where the registry tells nothing.
audit() {
    local tools=$VENV/audit packages report unknown
    packages=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    if ! PYTHONPATH=$tools "$VENV/bin/python" -c "import pip_audit" 2>/dev/null; then
        say "Installing $AUDITOR beside the app's packages ..."
        if ! run_logged "$VENV/bin/python" -m pip install --disable-pip-version-check --progress-bar off --retries 1 \
            --timeout 15 --upgrade --target "$tools" "$AUDITOR"; then
            say "No report: $(why_pip_failed) (details: $LOG)."
            return
        fi
        rm -f "$LOG"
    fi
    report=$(PYTHONPATH=$tools "$VENV/bin/python" -m pip_audit --path "$packages" --progress-spinner off --timeout 15 2>&1) || true
    grep -v 'could not be audited' <<<"$report" || true
    unknown=$(grep -c 'could not be audited' <<<"$report") || return 0
    say "$unknown packages could not be looked up: whether they have known weaknesses is not known."
}

main "$@"
