#!/bin/sh
# Measures a node of this build on this machine, alone. Load generator and
# server share the processors, so compare only with runs on the same machine.
set -eu
bin=$1
duration=$2
out=$(mktemp)
"$bin" dev --ephemeral --listen 127.0.0.1:0 --grpc-listen 127.0.0.1:0 --transition-delay 0s >"$out" &
node=$!
trap 'kill $node 2>/dev/null; wait $node || true; rm -f "$out"' EXIT
endpoint=
while [ -z "$endpoint" ]; do
  kill -0 $node
  endpoint=$(sed -n 's/^endpoint: //p' "$out")
  sleep 0.1
done
run() { "$bin" bench "$@" --endpoint "$endpoint" --duration "$duration"; }
run put --connections 1
run put --connections 16
run put-batch --batch 100
run put-batch --batch 500 --verify
run put-batch --batch 100 --shards 1000
run get
run e2e
run ceiling --batch 100
