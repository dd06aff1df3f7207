#!/bin/sh
# Builds Kappa's images and puts them where the current cluster finds them; says in one line what it did. What has not changed since it
# was put there is left alone.
#
#   IMAGES="runtime-python3.13 control-plane"   which ones; all by default
#   KAPPA_REGISTRY=host/path   built with docker or podman and pushed there
#   KAPPA_CLUSTER=path     otherwise: a command with `build` and `images` of a local cluster; used where it exists
#   TAG=dev                the images' tag
#   KAPPA_STAMPS=folder    where it remembers what it has done
#
# With neither, the current context has to be a kind cluster: built with docker or podman and loaded into its nodes.
set -eu

cd "$(dirname "$0")/.."
images=${IMAGES:-control-plane postgresql runtime-python3.12 runtime-python3.13 runtime-nodejs22.x runtime-provided}
tag=${TAG:-dev}
cluster=${KAPPA_CLUSTER:-../shared/cluster/cluster}
registry=${KAPPA_REGISTRY:-}
stamps=${KAPPA_STAMPS:-.venv/.images}

fail() {
    echo "kappa: $1" >&2
    exit 1
}

# The Dockerfile, the context, a build argument and what else goes into an image.
describe() {
    argument=''
    context=.
    case $1 in
    control-plane)
        file=gateway/Dockerfile inputs="core crds gateway operator runtimes requirements pyproject.toml README.md LICENSE" ;;
    postgresql)
        file=charts/kappa/postgresql/Dockerfile context=charts/kappa/postgresql inputs=$context ;;
    runtime-python*)
        file=runtimes/python/Dockerfile argument=PYTHON_VERSION=${1#runtime-python} inputs="core/src runtimes/src requirements" ;;
    runtime-nodejs*)
        version=${1#runtime-nodejs}
        file=runtimes/node/Dockerfile argument=NODE_VERSION=${version%.x} inputs="core/src runtimes/src runtimes/node-sdk requirements" ;;
    runtime-provided)
        file=runtimes/provided/Dockerfile inputs="core/src runtimes/src requirements" ;;
    *) fail "there is no image $1" ;;
    esac
}

# A digest of everything that goes in.
fingerprint() {
    # shellcheck disable=SC2086 # several paths
    {
        echo "$argument"
        find "$file" .dockerignore $inputs -type f ! -path '*/__pycache__/*' ! -path '*/node_modules/*' -exec sha256sum {} + | LC_ALL=C sort
    } | sha256sum | cut -d' ' -f1
}

# An engine that builds here: docker, else podman.
find_engine() {
    for engine in docker podman; do
        if "$engine" version >/dev/null 2>&1; then return; fi
    done
    fail "neither docker nor podman works here"
}

engine=''
kind_name=''
if [ -n "$registry" ]; then
    target=registry prefix=$registry/kappa
    find_engine
elif [ -x "$cluster" ]; then
    target=cluster prefix=kappa
    known=$("$cluster" images)
    eval "$("$cluster" env)"
else
    find_engine
    context_name=$(kubectl config current-context 2>/dev/null || true)
    # In full: podman would call an image without a registry localhost/..., which is not what pods ask for.
    target=kind prefix=docker.io/kappa kind_name=${context_name#kind-}
    [ "$kind_name" != "$context_name" ] ||
        fail "the context '$context_name' is no kind cluster: set KAPPA_REGISTRY to where it pulls images from"
    command -v kind >/dev/null || fail "the context '$context_name' is a kind cluster, and there is no command kind"
fi
# A new cluster under an old name has none of the images.
place=$target-$registry-$(kubectl get namespace kube-system --output 'jsonpath={.metadata.uid}' 2>/dev/null || echo unknown)

is_there() {
    case $target in
    cluster) echo "$known" | grep -qx "$1" ;;
    *) "$engine" image inspect "$1" >/dev/null 2>&1 ;;
    esac
}

build() {
    # shellcheck disable=SC2086 # no argument, or two words
    case $target in
    cluster) "$cluster" build -t "$1" ${argument:+--build-arg $argument} -f "$file" "$context" ;;
    *) "$engine" build -t "$1" ${argument:+--build-arg $argument} -f "$file" "$context" ;;
    esac
}

hand_over() {
    case $target in
    cluster) ;;
    registry) "$engine" push "$1" ;;
    kind)
        "$engine" save --output "$scratch/image.tar" "$1" && kind load image-archive "$scratch/image.tar" --name "$kind_name" || return
        rm "$scratch/image.tar"
        ;;
    esac
}

mkdir -p "$stamps"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
log=$scratch/log
built=''
same=''
for image in $images; do
    describe "$image"
    name=$prefix/$image:$tag
    stamp=$stamps/$image-$tag
    wanted="$place $(fingerprint)"
    if [ "$(cat "$stamp" 2>/dev/null || true)" = "$wanted" ] && is_there "$name"; then
        same="$same $image"
        continue
    fi
    if ! { build "$name" && hand_over "$name"; } >"$log" 2>&1; then
        tail -n 25 "$log" >&2
        fail "image $name was not built"
    fi
    echo "$wanted" >"$stamp"
    built="$built $image"
done
echo "kappa images, $target, tag $tag: built${built:- nothing}${same:+; unchanged$same}"
