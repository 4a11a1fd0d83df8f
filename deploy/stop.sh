#!/bin/sh
# Stop the server that `make run` started, and wait until it has finished its work.
set -eu
pid_file="$1/server.pid"
if [ ! -f "$pid_file" ]; then
    echo "no server was started by make run"
    exit 0
fi
pid=$(cat "$pid_file")
rm -f "$pid_file"
# The number may have gone to another process since.
if ! cat "/proc/$pid/cmdline" 2>/dev/null | tr '\0' ' ' | grep -q 'unface serve'; then
    echo "the server had stopped already"
    exit 0
fi
kill "$pid"
tries=0
while kill -0 "$pid" 2>/dev/null && [ $tries -lt 100 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
echo "stopped"
