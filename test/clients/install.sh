#!/usr/bin/env bash
# usage: test/clients/install.sh
#
# Installs the clients that test/realclients drives, each in the version that
# its own lock file or pom.xml names. A component leaves .cache/clients/NAME.installed,
# which holds a checksum of what it was made from, so that a second run does
# nothing; or NAME.missing with the reason, which the tests repeat.
set -uo pipefail
cd "$(dirname "$0")"
state=../../.cache/clients
mkdir -p $state
state=$(cd $state && pwd)

# component NAME NEEDS SOURCES COMMAND...: runs the command unless the sources are
# those of the last time. NEEDS are programs, SOURCES folders and files.
component() {
  local name=$1 needs=$2 sources=$3 sum program
  shift 3
  sum=$(find $sources \( -name node_modules -o -name target -o -name bin \) -prune -o -type f -print0 | sort -z | xargs -0 cat | sha256sum)
  if [ "$(cat "$state/$name.installed" 2>/dev/null)" = "$sum" ]; then
    return
  fi
  rm -f "$state/$name.installed" "$state/$name.missing"
  for program in $needs; do
    if ! command -v "$program" >/dev/null; then
      missing "$name" "there is no $program"
      return
    fi
  done
  echo "installing $name"
  if "$@" >"$state/$name.out" 2>&1; then
    echo "$sum" >"$state/$name.installed"
  else
    missing "$name" "$name could not be installed: $(sed 's/\x1b\[[0-9;]*m//g; s/^\[ERROR\] //' "$state/$name.out" \
      | grep -iE 'error|could not|failed' | head -1 | cut -c1-240)"
  fi
}

missing() {
  echo "$2" >"$state/$1.missing"
  echo "NOTE: $2"
}

maven() { mvn -B -q -f java/pom.xml -pl "$1" clean package; }
npm_ci() { (cd "$1" && npm ci --no-audit --no-fund --silent); }
go_build() { (cd go && go build -o bin/ "./$1"); }
venv() { # NAME: the virtual environment .cache/clients/NAME of NAME/requirements.txt
  rm -rf "${state:?}/$1" && python3 -m venv "$state/$1" \
    && "$state/$1/bin/pip" install --quiet --disable-pip-version-check -r "$1/requirements.txt"
}

component dynalite "node npm" dynamodb npm_ci dynamodb
component sdk2 "java mvn" "java/pom.xml java/sdk2" maven sdk2
component kcl3 "java mvn" "java/pom.xml java/kcl3 java/kcl" maven kcl3
component kcl2 "java mvn" "java/pom.xml java/kcl2 java/kcl" maven kcl2
component kpl "java mvn" "java/pom.xml java/kpl" maven kpl
component kcl1 "java mvn" "java/pom.xml java/kcl1" maven kcl1
component vmware go "go/go.mod go/go.sum go/events go/vmware" go_build vmware
component harlow go "go/go.mod go/go.sum go/events go/harlow" go_build harlow
component node "node npm" node npm_ci node
component multilang "java mvn node" "java/pom.xml java/multilang" maven multilang
component async python3 async/requirements.txt venv async
