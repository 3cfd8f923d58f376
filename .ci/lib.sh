# What the scripts of this folder share. They read it with:  . "$(dirname "$0")/lib.sh"
# shellcheck shell=bash

passed() { printf 'ok    %s\n' "$*"; }

# Prints what failed, what was expected and what came, a line for each, and the transcript; then ends the script.
fail() { # WHAT [EXPECTED CAME [TRANSCRIPT]]
    printf 'FAIL  %s\n' "$1" >&2
    if [ $# -gt 1 ]; then
        printf '      expected: %s\n      came:     %s\n' "$2" "$3" >&2
    fi
    if [ -n "${4:-}" ]; then
        sed 's/^/      | /' "$4" >&2
    fi
    exit 1
}

# Runs a command ten times a second until it succeeds; fails when the time is over.
within() { # SECONDS COMMAND…
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1
    done
}

# Succeeds when no process has this id any more.
ended() { ! kill -0 "$1" 2>/dev/null; } # ID

# The folder of a script, and the log to show when it fails.
work=""
log=""

# Ends what is no job of the script, if that has a function for it, and kills what still runs in the background. The script's folder
# is removed where all is well; else the end of the log is shown, and the folder stays. The exit status is that of the script.
finish() {
    local status=$? id
    trap - EXIT INT TERM
    set +e
    if declare -F end_servers >/dev/null; then
        end_servers
    fi
    for id in $(jobs -pr); do
        kill -KILL "$id" 2>/dev/null || true
        wait "$id" 2>/dev/null || true
    done
    if [ $status -eq 0 ]; then
        rm -rf "$work"
    else
        if [ -s "$log" ]; then
            printf '\nThe last lines of %s:\n' "$log" >&2
            tail -n 30 "$log" >&2
        fi
        rmdir "$work" 2>/dev/null || echo "the files of this run are in $work" >&2
    fi
    exit $status
}

# Makes the folder $work, and has `finish` run at the end.
begin() {
    work=$(mktemp -d)
    trap finish EXIT
    trap 'exit 130' INT TERM
}

# The address that a relay names in a JSON log line with this message; fails while there is none.
address() { # MESSAGE [LOG]
    sed -n "s/.*\"message\":\"$1\".*\"address\":\"\([^\"]*\)\".*/\1/p" "${2:-$log}" | head -n 1 | grep .
}

# A step of .ci/run or .ci/quick, and the duration of each.
times=""
current=""

step() { # HEADLINE COMMAND…
    current="$1"
    local began=$SECONDS
    printf '\n=== %s\n' "$current"
    shift
    "$@"
    times+=$(printf '%5ds  %s' $((SECONDS - began)) "$current")$'\n'
    current=""
}

steps_taken() { # STATUS
    printf '\n%s%5ds  in all\n' "$times" "$SECONDS"
    if [ "$1" -ne 0 ]; then
        printf 'FAILED in: %s (exit status %d)\n' "${current:-the script itself}" "$1"
    fi
}
