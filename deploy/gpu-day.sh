#!/usr/bin/env bash
# A GPU day: everything that only a GPU can show, in ten minutes, as a bundle of evidence. From a fresh clone:
#   deploy/gpu-day.sh                      in the image of Dockerfile.triton where Docker reaches a GPU, else here
#   deploy/gpu-day.sh --no-docker          here, in .venv: with the pip-installed Triton, whose CUDA graphs are none
#   deploy/gpu-day.sh --device cpu         a rehearsal
# What else is given goes to `python -m benchmarks gpu-day`. Images and packages are fetched before the ten minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

image=gpu-day
docker=yes
arguments=()
for argument; do
    case "$argument" in
        --no-docker) docker=no ;;
        --help | -h)
            sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        *) arguments+=("$argument") ;;
    esac
done

say() { printf '%s\n' "$*" >&2; }

commit() {
    git rev-parse HEAD 2> /dev/null | tr -d "\n"
    git diff --quiet HEAD 2> /dev/null || printf +
}

in_docker() {
    local terminal=()
    [ -t 0 ] && [ -t 1 ] && terminal=(--interactive --tty)
    mkdir -p artifacts data
    # The checkout over the image's copy: what is tried is what lies here, and the evidence is yours. 1 GB of shared
    # memory for the Python models; --init reaps what they leave behind; MLflow records the paths outside.
    exec docker run --rm --init "${terminal[@]}" --gpus all --shm-size 1g --user "$(id -u):$(id -g)" \
        --env HOME=/tmp --env ARTIFACTS_OUTSIDE="$PWD/artifacts" --env GPU_DAY_COMMIT="$(commit)" --volume "$PWD:/app" --workdir /app \
        --entrypoint /opt/nvidia/nvidia_entrypoint.sh "$image" \
        /opt/export/bin/python -m benchmarks gpu-day "${arguments[@]}"
}

here() {
    make --no-print-directory setup
    if [ -e /dev/nvidiactl ] || [ -e /dev/dxg ]; then
        .venv/bin/python -c 'import tensorrt' 2> /dev/null || .venv/bin/pip install --no-deps --require-hashes -r deploy/server-gpu.lock \
            || say "warning: TensorRT could not be installed; its steps are skipped"
    fi
    exec .venv/bin/python -m benchmarks gpu-day "${arguments[@]}"
}

why_not=""
if [ "$docker" = no ]; then
    why_not="--no-docker"
elif ! command -v docker > /dev/null; then
    why_not="there is no docker"
elif ! docker info > /dev/null 2>&1; then
    why_not="docker info fails: is the daemon up, and may you use it?"
else
    say "Building the image (once; the base is some GB)"
    if ! docker build --file Dockerfile.triton --target export --tag "$image" . >&2; then
        why_not="the image could not be built; if it has no digest to stand on: make pin-images"
    # The toolkit's hook fails where there is no driver or no GPU.
    elif ! docker run --rm --gpus all --entrypoint true "$image" > /dev/null 2>&1; then
        why_not="docker run --gpus all fails: is the NVIDIA Container Toolkit installed?"
    fi
fi
if [ -z "$why_not" ]; then
    in_docker
fi
say "Without Docker: $why_not"
here
