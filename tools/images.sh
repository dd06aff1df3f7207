#!/bin/sh
# Builds Kappa's images and puts them where the current cluster finds them; says in one line what it did. What has not changed since it
# was put there is left alone.
#
#   IMAGES="runtime-python3.13 control-plane"   which ones; all by default
#   KAPPA_CLUSTER=path     a command with `build` and `images` of a local cluster; used where it exists
#   KAPPA_REGISTRY=host/path   otherwise, and where the current context is no kind cluster: pushed there
#   TAG=dev                the images' tag
set -eu

cd "$(dirname "$0")/.."
images=${IMAGES:-control-plane postgresql runtime-python3.12 runtime-python3.13 runtime-nodejs22.x runtime-provided}
tag=${TAG:-dev}
cluster=${KAPPA_CLUSTER:-../shared/cluster/cluster}
registry=${KAPPA_REGISTRY:-}
stamps=.venv/.images

fail() {
    echo "kappa: $1" >&2
    exit 1
}

# The Dockerfile, the context, a build argument and what else goes into an image.
describe() {
    argument= context=.
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
    # shellcheck disable=SC2086 - several paths
    {
        echo "$argument"
        find "$file" .dockerignore $inputs -type f ! -path '*/__pycache__/*' ! -path '*/node_modules/*' -exec sha256sum {} + | LC_ALL=C sort
    } | sha256sum | cut -d' ' -f1
}

target=
engine=
context_name=
if [ -x "$cluster" ]; then
    target=cluster
    known=$("$cluster" images)
    eval "$("$cluster" env)"
else
    for engine in docker podman none; do
        if "$engine" version >/dev/null 2>&1; then break; fi
    done
    [ "$engine" != none ] || fail "neither docker nor podman works here"
    context_name=$(kubectl config current-context 2>/dev/null || true)
    case $context_name in
    kind-*) target=kind ;;
    *)
        [ -n "$registry" ] || fail "the context '$context_name' is no kind cluster: set KAPPA_REGISTRY to where it pulls images from"
        target=registry
        ;;
    esac
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
    # shellcheck disable=SC2086 - no argument, or two words
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
        archive=$(mktemp)
        "$engine" save --output "$archive" "$1" && kind load image-archive "$archive" --name "${context_name#kind-}"
        rm -f "$archive"
        ;;
    esac
}

mkdir -p "$stamps"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
built= same=
for image in $images; do
    describe "$image"
    name=kappa/$image:$tag
    [ "$target" != registry ] || name=$registry/$name
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
