#!/bin/sh
# Start the server on localhost, send it one picture, say how to go on. Called by `make run`.
set -eu
bin=$1 port=$2 http_port=$3 photo=$4 out=$5
here=$(dirname "$0")
target="127.0.0.1:$port"

if [ ! -f "$photo" ]; then
    echo "no picture at $photo: make run PHOTO=path/to/picture.jpg" >&2
    exit 1
fi
mkdir -p "$out"
"$here/stop.sh" "$out" >/dev/null
# A session of its own, so that it outlives this terminal until `make stop`.
setsid "$bin/unface" serve --host 127.0.0.1 --port "$port" \
    --http-port "$http_port" >"$out/server.log" 2>&1 </dev/null &
echo $! >"$out/server.pid"

pid=$(cat "$out/server.pid")
until grep -q '^unface serving on' "$out/server.log"; do
    if ! kill -0 "$pid" 2>/dev/null; then
        cat "$out/server.log" >&2
        echo "another port: make run PORT=50052 HTTP_PORT=8081" >&2
        rm -f "$out/server.pid"
        exit 1
    fi
    sleep 0.1
done
if ! "$bin/unface" anonymize "$photo" -o "$out" --force --server "$target"; then
    echo "the server goes on at $target; make stop ends it" >&2
    exit 1
fi
cat <<END

The picture without faces:  $out/$(basename "$photo")
The server goes on at $target, its page at http://localhost:$http_port; its log is $out/server.log.

  your own pictures    $bin/unface anonymize my-photos/ -o clean/ --server $target
  without a server     $bin/unface anonymize my-photos/ -o clean/
  only look            $bin/unface detect my-photo.jpg
  stop the server      make stop
END
